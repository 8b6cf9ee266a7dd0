"""minitx: a tiny decoder-only transformer whose attention heads can be watched while they learn."""

__version__ = "0.1.0"
