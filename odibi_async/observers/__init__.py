"""Observers: what is made of the events of runs."""
