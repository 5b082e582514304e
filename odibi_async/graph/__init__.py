"""The graph of a pipeline (which step waits for which), and its parts."""
