"""Quicker forms of textbook lines: the same arithmetic in fewer or faster operations. Safe to skip."""
