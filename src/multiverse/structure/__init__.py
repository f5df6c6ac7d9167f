"""The grammar of fork and join: tags, trees, parsing, rendering, layout and the incremental machine.

Pure Python. This is the only package that knows a tag; everything else asks it.
"""

from .dialect import DIALECTS, MULTIVERSE, NPR, THREADWEAVER, Dialect, Role, Tag, child_label, read_dialect, write_dialect
from .encode import Encoded, encode
from .guard import Exit, Rule, exit_of, growth, rule, way_out
from .layout import TRUNK, Branch, Layout, Replay, check_share_every, layout, partings, visibility
from .machine import BranchEnd, Event, Fork, Join, Machine, State
from .parse import parse
from .render import Segment, render, segments
from .roles import RoleTracker, TextRole, TokenRole
from .shape import Shape, measure, word_tokens
from .tokens import TokenDialect, detect, resolve
from .tree import Block, Body, Document
from .twin import twin

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
    "Exit",
    "Fork",
    "Join",
    "Layout",
    "Machine",
    "Replay",
    "Role",
    "RoleTracker",
    "Rule",
    "Segment",
    "Shape",
    "State",
    "Tag",
    "TextRole",
    "TokenDialect",
    "TokenRole",
    "check_share_every",
    "child_label",
    "detect",
    "encode",
    "exit_of",
    "growth",
    "layout",
    "measure",
    "parse",
    "partings",
    "read_dialect",
    "render",
    "resolve",
    "rule",
    "segments",
    "twin",
    "visibility",
    "way_out",
    "word_tokens",
    "write_dialect",
]
