"""From a text source to batches of tokens."""
