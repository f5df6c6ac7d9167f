"""What reports as single HTML files share: their look, their script, and data in them. No torch.

A page is a template with places like ``{{ data }}``. What a model or a person wrote goes in as JSON and is put on the page as
text, never as markup; nothing is loaded from anywhere.
"""

from .page import embedded, fill, script, style
from .tree import tree_json, within

__all__ = ["embedded", "fill", "script", "style", "tree_json", "within"]
