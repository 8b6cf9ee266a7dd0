"""Training a model: the loop, its optimizers, and what it reports while it runs."""
