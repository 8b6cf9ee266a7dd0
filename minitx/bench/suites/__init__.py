"""One module per suite; its `run` yields tables."""
