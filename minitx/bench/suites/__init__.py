"""One module for each suite; its `run` yields tables."""
