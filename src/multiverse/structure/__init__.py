"""The grammar of fork and join: tags, trees, parsing, rendering, layout and the incremental machine.

Pure Python. This is the only package that knows a tag; everything else asks it.
"""

from .dialect import DIALECTS, MULTIVERSE, NPR, THREADWEAVER, Dialect, Role, Tag, child_label
from .encode import Encoded, encode
from .layout import TRUNK, Branch, Layout, Replay, layout, visibility
from .machine import BranchEnd, Event, Fork, Join, Machine, State
from .parse import parse
from .render import Segment, render, segments
from .tokens import TokenDialect, detect, resolve
from .tree import Block, Body, Document

__all__ = [
    "DIALECTS",
    "MULTIVERSE",
    "NPR",
    "THREADWEAVER",
    "TRUNK",
    "Block",
    "Body",
    "Branch",
    "BranchEnd",
    "Dialect",
    "Document",
    "Encoded",
    "Event",
    "Fork",
    "Join",
    "Layout",
    "Machine",
    "Replay",
    "Role",
    "Segment",
    "State",
    "Tag",
    "TokenDialect",
    "child_label",
    "detect",
    "encode",
    "layout",
    "parse",
    "render",
    "resolve",
    "segments",
    "visibility",
]
