"""Other programs that minitx is compared with."""
