"""The families in natural wording: names, things and phrasings from large lists, with a held-out part of each."""
