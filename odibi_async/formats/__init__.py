"""The forms that a configuration may have. Each file reads one into a `Source`: what stands there, and where."""
