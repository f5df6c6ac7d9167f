"""What is asked: our task families, files of questions and answers, and reasoning-gym, mixed by weight. No torch."""

from .config import QuestionSource, Stage
from .questions import Questions

__all__ = ["QuestionSource", "Questions", "Stage"]
