"""The recipe of multiverse-mini: tokenizer, model shape and training data."""
