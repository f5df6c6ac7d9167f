"""Recipes: whole runs, from nothing to a folder."""
