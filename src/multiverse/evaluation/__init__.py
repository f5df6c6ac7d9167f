"""Measuring: how right models are on tasks, and how parallel documents are."""
