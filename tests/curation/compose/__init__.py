"""Composition: reading, filters, texts, documents, runs."""
