"""Configuration files: one format a module, read into a `Source` that knows the place of every entry."""
