//! Largest cosine similarity between the atoms of two dictionaries, in tiles.
