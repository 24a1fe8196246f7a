"""Dictionaries that were not trained sparsely, to stand beside the trained ones."""
