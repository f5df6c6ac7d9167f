"""Whether two mathematical answers are worth the same: read by an own reader, compared exactly where both are rational.

Imported by the worker process of `MathGrader` under its own name, so nothing here imports from outside this folder.
"""

from .compare import equivalent
from .extract import candidates, last_box
from .forms import Form, Unreadable
from .reader import readings

__all__ = ["Form", "Unreadable", "candidates", "equivalent", "last_box", "readings"]
