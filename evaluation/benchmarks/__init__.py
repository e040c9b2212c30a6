"""One module per benchmark; `evaluation.registry` lists them."""
