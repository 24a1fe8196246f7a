"""Dictionaries and models of other libraries."""
