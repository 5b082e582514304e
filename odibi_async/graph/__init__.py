"""Who waits for whom: the graph of a pipeline, and its parts."""
