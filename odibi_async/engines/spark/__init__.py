"""The Spark engine: datasets are Spark DataFrames. `engine.py` is its face; the other modules hold one concern each."""
