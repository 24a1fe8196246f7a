"""The claims of the seed experiment: a file each with its words, the evidence it needs, its rule and its verdict."""
