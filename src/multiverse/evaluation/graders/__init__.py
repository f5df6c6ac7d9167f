"""Graders: whether an answer is right."""
