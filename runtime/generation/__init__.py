"""Texts token by token: the graphs of a model that writes, the rules for scores, and the search over them."""
