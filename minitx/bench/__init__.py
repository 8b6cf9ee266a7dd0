"""What `minitx bench` measures: one module for each suite, and what they share."""
