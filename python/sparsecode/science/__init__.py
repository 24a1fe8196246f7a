"""The claims of the seed experiment, measured. So far: toy data whose true features are known."""
