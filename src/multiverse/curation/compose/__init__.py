"""Composition: a model's own answers to single questions, joined into documents that fork. No teacher."""

from .config import ComposeConfig
from .job import Composition
from .questions import Question, read_questions

__all__ = ["ComposeConfig", "Composition", "Question", "read_questions"]
