"""Writing text with a trained model, one token at a time."""
