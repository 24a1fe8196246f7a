"""Science: the claims of the seed experiment, tested on data, each with a verdict that can come out either way."""
