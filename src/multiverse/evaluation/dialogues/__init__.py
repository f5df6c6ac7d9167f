"""Dialogues: benchmarks of several turns, with or without an image, whose answers are judged by checklists."""
