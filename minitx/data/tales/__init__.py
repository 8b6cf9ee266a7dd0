"""Tales: short stories of a grammar that knows its own probabilities and labels what each word depends on."""
