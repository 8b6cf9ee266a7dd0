"""What `minitx bench` measures: minitx and its peers, timed in turn."""
