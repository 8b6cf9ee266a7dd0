"""Looking at heads: what each attends to, how much it matters, which role it fits."""
