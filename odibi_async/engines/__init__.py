"""Engines: what a dataset is, and how it is read, written and queried."""
