"""Toy models: data made of known features, and how much of these a dictionary recovers."""
