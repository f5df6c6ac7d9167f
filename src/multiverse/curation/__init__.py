"""Sequential reasoning in, parallel training data out. Torch-free."""
