"""The grammar of fork and join: tags, trees, parsing, rendering, layout and the incremental machine.

Pure Python. The tags are defined in this package only; other packages get them from a `Dialect`.
"""

from .answer import last_box, plain_answer
from .chat import ChatEncoder, ChatForm, ChatPrompt, text_of
from .contexts import Contexts, ContextToken
from .dialect import Blocks, Dialect, Joins, Positions, Role, Tag, child_label, read_dialect, write_dialect
from .dialects import DIALECTS, MULTIVERSE, MULTIVERSE_ANSWER, MULTIVERSE_COMPACT, NPR, THREADWEAVER, THREADWEAVER_CONCLUSION
from .earlier import broken_thinking
from .encode import Encoded, encode
from .guard import (
    AllowedTokens,
    ClosingCost,
    allowed_tokens,
    closing_cost,
    closing_tokens,
    growth,
    in_answer,
    required_tokens,
)
from .joins import merge, merge_text, message, message_text
from .layout import TRUNK, BranchSpec, Layout, Replay, check_share_every, layout, partings, visibility
from .machine import Machine, State
from .markdown import MarkdownWriter, markdown, markdown_pieces, markdown_text
from .parse import parse
from .place import convert, place
from .render import Segment, render, segments
from .roles import RoleTracker, TextRole, TokenRole
from .sequential import sequential_baseline, unnested
from .shape import Shape, content_parallelism, leaves, measure, word_tokens
from .tokens import TokenDialect, bind, detect, resolve
from .transitions import BranchEnd, Fork, Join, Stop, Transition
from .tree import AsWritten, Block, Body, Document
from .turns import Turns, end_of_turn, turns_of

__all__ = [
    "DIALECTS",
    "MULTIVERSE",
    "MULTIVERSE_ANSWER",
    "MULTIVERSE_COMPACT",
    "NPR",
    "THREADWEAVER",
    "THREADWEAVER_CONCLUSION",
    "TRUNK",
    "AllowedTokens",
    "AsWritten",
    "Block",
    "Blocks",
    "Body",
    "BranchEnd",
    "BranchSpec",
    "ChatEncoder",
    "ChatForm",
    "ChatPrompt",
    "ClosingCost",
    "ContextToken",
    "Contexts",
    "Dialect",
    "Document",
    "Encoded",
    "Fork",
    "Join",
    "Joins",
    "Layout",
    "Machine",
    "MarkdownWriter",
    "Positions",
    "Replay",
    "Role",
    "RoleTracker",
    "Segment",
    "Shape",
    "State",
    "Stop",
    "Tag",
    "TextRole",
    "TokenDialect",
    "TokenRole",
    "Transition",
    "Turns",
    "allowed_tokens",
    "bind",
    "broken_thinking",
    "check_share_every",
    "child_label",
    "closing_cost",
    "closing_tokens",
    "content_parallelism",
    "convert",
    "detect",
    "encode",
    "end_of_turn",
    "growth",
    "in_answer",
    "last_box",
    "layout",
    "leaves",
    "markdown",
    "markdown_pieces",
    "markdown_text",
    "measure",
    "merge",
    "merge_text",
    "message",
    "message_text",
    "parse",
    "partings",
    "place",
    "plain_answer",
    "read_dialect",
    "render",
    "required_tokens",
    "resolve",
    "segments",
    "sequential_baseline",
    "text_of",
    "turns_of",
    "unnested",
    "visibility",
    "word_tokens",
    "write_dialect",
]
