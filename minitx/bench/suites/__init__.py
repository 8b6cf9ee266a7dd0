"""One module for each suite of `minitx bench`; its `run` yields tables."""
