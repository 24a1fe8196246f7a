"""A folder that shows every feature of a run: gathered from its activations, and read by any browser."""
