"""The suites of `minitx bench`: minitx and other programs, timed by turns."""
