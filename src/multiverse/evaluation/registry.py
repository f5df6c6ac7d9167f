"""Entry point for inspect: model providers and tasks."""

from __future__ import annotations

from .inspecting import TASKS
from .providers import multiverse
from .server import multiverse_server

__all__ = ["TASKS", "multiverse", "multiverse_server"]
