"""Pipelines in a FastAPI app."""
