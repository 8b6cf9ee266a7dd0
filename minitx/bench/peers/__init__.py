"""Other programs that minitx is measured beside."""
