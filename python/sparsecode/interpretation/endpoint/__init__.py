"""Explanations and scores from a language model behind an OpenAI-compatible endpoint.

`budget` says what calls cost and keeps within what may be spent, `client` makes one call, `calls` keeps every answer
and never asks twice, `questions` writes prompts and reads answers, and `judging` scores directions with them.
"""
