"""Graders: whether an answer is right, each against what may go wrong while finding out."""
