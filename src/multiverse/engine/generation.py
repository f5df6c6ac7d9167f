"""The result of a finished request. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..errors import StructureError
from ..structure import Dialect, Document, Role, markdown_pieces, parse, plain_answer
from .branch import Branch, Support, TokenScore, Top
from .html import draw_html
from .params import SamplingParams
from .tree import BranchTree, ModelInfo

_Order = list[tuple[Branch, int]]  # tokens in document order: a branch, and the token's index there


@dataclass(frozen=True)
class Usage:
    """Token counts and timing of a generation.

    Attributes:
        prompt_tokens: tokens of the prompt.
        total_tokens: all generated tokens over all branches, forced ones included.
        critical_path_tokens: highest generated position + 1 - positions of the prompt.
        critical_path_steps: most forwards on any chain: fewer than tokens where forced tokens are computed together.
        seconds: wall-clock time from submission to finish, time spent on other requests included.
        cached_tokens: tokens of the prompt that came from the prefix cache.
        preemptions: how often the request was preempted.
        reread_tokens: tokens of paths that their parents read again after joins by text or message; not part of the others.
        queue_seconds: those of `seconds` before it was first admitted to the batch.
    """

    prompt_tokens: int
    total_tokens: int
    critical_path_tokens: int
    critical_path_steps: int
    seconds: float
    cached_tokens: int = 0
    preemptions: int = 0
    reread_tokens: int = 0
    queue_seconds: float = field(default=0.0, compare=False)

    @property
    def admitted(self) -> bool:
        """Whether it was ever admitted to the batch."""
        return self.queue_seconds < self.seconds

    @property
    def parallelism(self) -> float:
        """`total_tokens` over `critical_path_tokens`; 1.0 when sequential."""
        return self.total_tokens / self.critical_path_tokens if self.critical_path_tokens else 1.0

    def to_json(self, *names: str) -> dict[str, Any]:
        """These fields, `parallelism` among them, in this order; all of them by default."""
        return {name: getattr(self, name) for name in names or _USAGE_FIELDS}


_USAGE_FIELDS = (
    "prompt_tokens",
    "total_tokens",
    "critical_path_tokens",
    "critical_path_steps",
    "parallelism",
    "seconds",
    "cached_tokens",
    "preemptions",
    "reread_tokens",
)


@dataclass(frozen=True, repr=False)
class Generation:
    """One finished request; the per-token tuples are in document order.

    Its `repr` is one line; a notebook draws the tree.

    Attributes:
        text: the generated text, without the end-of-text token, a stop string (unless that was to be included), or the
            beginning of a character at the end of a branch that was cut off or closed inside of it.
        answer: the answer in `content`, as the model's family writes it (`families.Family.read_answer`); without one, as its
            dialect has it (`structure.plain_answer`); all of it where the request gave it a form.
        tree: the text as a tree, or `None` if it does not parse (cut short, or malformed).
        finish_reason: ``stop``; or the limit for which it was closed or cut off: ``length`` (tokens, or the model's last
            position), ``budget`` (critical path, thinking), ``deadline``; or ``malformed`` (the model broke the grammar),
            ``error`` (its logits were not finite), ``abort``.
        stop_reason: the stop string, or the id of the stop token, that ended it; or why an engine of the model's family ends it
            there (`Dialect.malformed`); `None` if something else did.
        content: what follows the thinking (nothing, if that never ends), without a leading ``Answer:``. A forked answer reads
            as Markdown, without tags: see `structure.markdown`.
        closed: label path of each path that was closed for a limit, with the limit, in the order of closing.
        structure_error: why there is no tree.
        token_ids, positions, branches, forced: per token; a branch is a label path such as ``2.1``, empty for the trunk.
        logprobs: per token, `None` for forced ones; `None` altogether unless asked for.
        top_logprobs: per token, the likeliest tokens and their log-probabilities, likeliest first, likewise.
        supports: per token, which tokens could be drawn in its place, `None` for forced ones and where all tokens could; `None`
            altogether unless asked for.
        prompt_token_ids: the prompt.
        prompt_logprobs: per token of the prompt, `None` for the first one and for those that the engine would write; `None`
            altogether unless asked for.
        left_out: of a chat: what the chat template leaves out of it, such as ``messages.1.reasoning``.
    """

    text: str
    answer: str
    tree: Document | None
    finish_reason: str
    usage: Usage
    token_ids: tuple[int, ...]
    positions: tuple[int, ...]
    branches: tuple[str, ...]
    forced: tuple[bool, ...]
    logprobs: tuple[float | None, ...] | None
    prompt_token_ids: tuple[int, ...] = field(repr=False)
    structure_error: str | None = None
    top_logprobs: tuple[Top | None, ...] | None = field(default=None, repr=False)
    supports: tuple[Support | None, ...] | None = field(default=None, repr=False)
    closed: tuple[tuple[str, str], ...] = ()
    prompt_logprobs: tuple[TokenScore | None, ...] | None = field(default=None, repr=False)
    stop_reason: str | int | None = None
    left_out: tuple[str, ...] = ()
    content: str = field(default="", repr=False)

    def __repr__(self) -> str:
        tree = "no tree" if self.tree is None else f"{self.tree.branches} paths" if self.tree.branches else "no paths"
        counts = f"{self.usage.total_tokens} tokens, parallelism {self.usage.parallelism:.2f}"
        shown = f"answer={_brief(self.answer)}" if self.answer else f"text={_brief(self.text)}"
        return f"<Generation {shown}, finish_reason={self.finish_reason!r}, {tree}, {counts}>"

    def _repr_html_(self) -> str:
        """The tree as HTML, for notebooks; whatever the model wrote is escaped."""
        usage = self.usage
        counts = f"{usage.total_tokens} tokens, critical path {usage.critical_path_tokens}, parallelism {usage.parallelism:.2f}"
        ended = "" if self.finish_reason == "stop" else f", ended by {self.finish_reason}"
        problem = [f"no tree: {self.structure_error}"] if self.tree is None and self.structure_error is not None else []
        lines = [*problem, f"{counts}, {usage.seconds:.2f} s{ended}"]
        return draw_html(self.tree, text=self.text, answer=self.answer, lines=lines)


def build_generation(
    tree: BranchTree,
    model: ModelInfo,
    params: SamplingParams,
    *,
    prompt: list[int],
    finish_reason: str,
    error: str | None,
    closed: tuple[tuple[str, str], ...],
    usage: Usage,
) -> Generation:
    """Put the branches of a finished request together in document order; arguments as in `Generation` and `Request`."""
    order = [(branch, i) for branch, start, end in tree.generated() for i in range(start, end)]
    text = _text(tree, model, order)
    document, problem = _parse(tree, model, text, finish_reason) if error is None else (None, error)
    content = _content(tree, model, order)
    return Generation(
        text=text,
        answer=_answer(content, text, model, params),
        content=plain_answer(content or "", "text"),
        tree=document,
        finish_reason=finish_reason,
        usage=usage,
        token_ids=tuple(branch.token_ids[i] for branch, i in order),
        positions=tuple(branch.positions[i] for branch, i in order),
        branches=tuple(branch.label for branch, _ in order),
        forced=tuple(branch.forced[i] for branch, i in order),
        logprobs=tuple(branch.drawn[i].logprob for branch, i in order) if params.logprobs else None,
        top_logprobs=tuple(branch.drawn[i].top for branch, i in order) if params.top_logprobs else None,
        supports=tuple(branch.drawn[i].support for branch, i in order) if params.supports else None,
        closed=closed,
        prompt_token_ids=tuple(prompt),
        structure_error=problem,
    )


def _text(tree: BranchTree, model: ModelInfo, order: _Order, start: int = 0) -> str:
    """The text, from this token on."""
    cut = _cut_pieces(tree, order)
    return _decode(tree, model, order[start:]) if cut is None else "".join(cut[start:])


def _decode(tree: BranchTree, model: ModelInfo, order: _Order) -> str:
    end = tree.ended_by
    last = len(end.token_ids) - 1 if end is not None else -1
    shown = ((branch, i) for branch, i in order if (branch is not end or i != last) and i not in branch.textless)
    return model.decode([branch.token_ids[i] for branch, i in shown])


def _cut_pieces(tree: BranchTree, order: _Order) -> list[str] | None:
    """The text of each token where a branch has met a stop string; `None` where none has.

    That branch's text ends before the stop string, the others stand as far as they came.
    """
    stopped = next((b for b in tree.branches if b.stream is not None and b.stream.stop_at is not None), None)
    if stopped is None:
        return None
    assert stopped.stream is not None
    assert stopped.stream.stop_at is not None
    pieces, left = [], stopped.stream.stop_at
    for branch, i in order:
        piece = branch.piece(i)
        if branch.stream is stopped.stream:
            piece = piece[:left]
            left -= len(piece)
        pieces.append(piece)
    return pieces


def _parse(tree: BranchTree, model: ModelInfo, text: str, finish_reason: str) -> tuple[Document | None, str | None]:
    """The text as a tree, or why there is none."""
    if model.tokens is None:
        return Document(None, text), None
    dialect = model.tokens.dialect
    if tree.prompt_thinking and dialect.think is not None:
        # The prompt opened the thinking, so the generated text alone would not parse.
        sep = dialect.after[Role.THINK_OPEN]
        text = dialect.think.open + sep + text.removeprefix(sep)
    if finish_reason != "stop":
        text = _without_separator(text, dialect)
    try:
        return parse(text, dialect), None
    except StructureError as error:
        cut = "" if finish_reason == "stop" else f"cut short ({finish_reason}): "
        return None, f"{cut}{error}"


def _without_separator(text: str, dialect: Dialect) -> str:
    """A text that was cut off, without the separator, or a part of it, after a tag behind which it might have ended."""
    for tag, sep in ((dialect.think, dialect.answer_sep), (dialect.block or dialect.conclusion, dialect.after[dialect.end])):
        if tag is not None:
            head, closed, rest = text.rpartition(tag.close)
            if closed and sep.startswith(rest):
                return head + closed
    return text


def _answer(content: str | None, text: str, model: ModelInfo, params: SamplingParams) -> str:
    """The answer in what follows the thinking; a family whose dialect has no tags for the thinking reads all of the text."""
    if content is None:
        return ""
    dialect = model.tokens.dialect if model.tokens is not None else None
    if params.answer_format is None and model.read_answer is not None:
        found = model.read_answer(text if dialect is not None and dialect.think is None else content)
        if found is not None:
            return found
    form = dialect.answer_form if dialect is not None and params.answer_format is None else "text"
    return plain_answer(content, form)


def _content(tree: BranchTree, model: ModelInfo, order: _Order) -> str | None:
    """What follows the thinking; `None` if that was cut off. Its tags are found as tokens: a text may speak of them."""
    tokens = model.tokens
    start = 0
    if tokens is None:
        return _text(tree, model, order)
    dialect = tokens.dialect
    borders = (Role.THINK_OPEN, Role.THINK_CLOSE) if dialect.think is not None else (dialect.begin, dialect.end)
    if dialect.think is not None or dialect.forks_thinking:
        trunk = [(number, branch.token_ids[i]) for number, (branch, i) in enumerate(order) if not branch.label]
        opened, closed = ([number for number, token in trunk if token == tokens.ids[role]] for role in borders)
        if closed:
            start = closed[-1] + 1
        elif opened or tree.prompt_thinking:
            return None  # cut off within the thinking
        if dialect.think is None and opened and opened[-1] >= start:
            return None  # cut off within a block
    if dialect.forks_answer:
        return markdown_pieces(_tags_and_texts(tree, model, order, start), dialect)
    return _text(tree, model, order, start)


def _tags_and_texts(tree: BranchTree, model: ModelInfo, order: _Order, start: int) -> Iterator[tuple[str, Role | str]]:
    """The tags from this token on, and the texts between them, each with the label path of its branch.

    A tag into which a stop string has cut is none.
    """
    assert model.tokens is not None
    roles = model.tokens.roles
    cut = _cut_pieces(tree, order)
    texts: list[int] = []  # numbers of the tokens of the text so far

    def text() -> tuple[str, str]:
        own = "".join(cut[number] for number in texts) if cut is not None else _decode(tree, model, [order[n] for n in texts])
        label = order[texts[0]][0].label
        texts.clear()
        return label, own

    for number in range(start, len(order)):
        branch, i = order[number]
        role = roles.get(branch.token_ids[i])
        if texts and (role is not None or order[texts[-1]][0] is not branch):
            yield text()
        if role is None:
            texts.append(number)
        elif cut is None or len(cut[number]) == len(branch.piece(i)):
            yield branch.label, role
    if texts:
        yield text()


def _brief(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
