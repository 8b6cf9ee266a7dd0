"""The run folder: everything that passes from training to the other uses."""
