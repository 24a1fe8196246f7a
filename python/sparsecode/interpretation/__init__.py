"""Automated interpretation: explanations of directions in words, and how well they predict activations on other text.

`sample` draws rows and halves, `groups` says which directions stand beside each other, `vocabulary` and `atoms` tell
what is true of a token in its text, `rules` finds an explanation and `words` says it, `scores` compares it with the
activations, `verdict` compares the groups, and `interpreting` does all of it.
"""
