"""Experiments on heads: several models side by side, and models with heads removed."""
