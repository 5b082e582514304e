"""One run of a graph."""
