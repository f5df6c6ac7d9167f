"""What a finished request gives back. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import StructureError
from ..structure import Document, TokenDialect, parse
from .branch import Branch, Top
from .request import Request


@dataclass(frozen=True)
class Usage:
    """What a generation took.

    Attributes:
        prompt_tokens: tokens of the prompt.
        total_tokens: all generated tokens over all branches, forced ones included.
        critical_path_tokens: highest generated position + 1 - positions of the prompt.
        seconds: wall-clock time from submission to finish, neighbours in the batch included.
        cached_tokens: tokens of the prompt that the prefix cache had already.
        preemptions: how often the request had to give way to others.
        queue_seconds: those of `seconds` before it was first admitted to the batch.
    """

    prompt_tokens: int
    total_tokens: int
    critical_path_tokens: int
    seconds: float
    cached_tokens: int = 0
    preemptions: int = 0
    queue_seconds: float = field(default=0.0, compare=False)

    @property
    def parallelism(self) -> float:
        """`total_tokens` over `critical_path_tokens`; 1.0 when sequential."""
        return self.total_tokens / self.critical_path_tokens if self.critical_path_tokens else 1.0


@dataclass(frozen=True)
class Generation:
    """One finished request; the per-token tuples are in document order.

    Attributes:
        text: the generated text, without the end-of-text token or a stop string.
        answer: what follows the thinking (nothing, if that never ends), without a leading ``Answer:``.
        tree: the text as a tree, or `None` if it does not parse (cut short, or malformed).
        finish_reason: ``stop``; or the bound for which it was wound up or cut: ``length`` (tokens, or the model's last
            position), ``budget`` (critical path, thinking), ``deadline``; or ``malformed`` (the model broke the grammar),
            ``error`` (the model gave no numbers), ``abort``.
        closed: label path of each path that was closed for a bound, with the bound, in the order of closing.
        structure_error: why there is no tree.
        token_ids, positions, branches, forced: per token; a branch is a label path such as ``2.1``, empty for the trunk.
        logprobs: per token, `None` for forced ones; `None` altogether unless asked for.
        top_logprobs: per token, the likeliest tokens and their log-probabilities, likeliest first, likewise.
        prompt_token_ids: the prompt.
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
    closed: tuple[tuple[str, str], ...] = ()


def finish(request: Request) -> Generation:
    """Put a finished request's branches together in document order."""
    assert request.finish_reason is not None
    order = list(_document_order(request.trunk))
    token_ids = tuple(branch.token_ids[i] for branch, i in order)
    positions = tuple(branch.positions[i] for branch, i in order)
    text = _text(request, order)
    tree, error = _parse(request, text)
    return Generation(
        text=text,
        answer=_answer(request.tokens, text, thinking=request.prompt_thinking),
        tree=tree,
        finish_reason=request.finish_reason,
        usage=Usage(
            prompt_tokens=len(request.prompt),
            total_tokens=len(token_ids),
            critical_path_tokens=max(positions, default=request.prompt_positions - 1) + 1 - request.prompt_positions,
            seconds=request.finished_at - request.started_at,
            cached_tokens=request.cached_tokens,
            preemptions=request.preemptions,
            queue_seconds=(request.admitted_at or request.finished_at) - request.started_at,
        ),
        token_ids=token_ids,
        positions=positions,
        branches=tuple(branch.label for branch, _ in order),
        forced=tuple(branch.forced[i] for branch, i in order),
        logprobs=tuple(branch.logprobs[i] for branch, i in order) if request.params.logprobs else None,
        top_logprobs=tuple(branch.tops[i] for branch, i in order) if request.params.top_logprobs else None,
        closed=tuple(request.closed),
        prompt_token_ids=tuple(request.prompt),
        structure_error=error,
    )


def _document_order(branch: Branch) -> list[tuple[Branch, int]]:
    order: list[tuple[Branch, int]] = []
    start = 0
    for end, children in [*branch.blocks, (len(branch.token_ids), [])]:
        order += [(branch, i) for i in range(start, end)]
        for child in children:
            order += _document_order(child)
        start = end
    return order


def _text(request: Request, order: list[tuple[Branch, int]]) -> str:
    if request.stopped is None:
        end = request.ended_by
        last = len(end.token_ids) - 1 if end is not None else -1
        return request.decode([branch.token_ids[i] for branch, i in order if branch is not end or i != last])
    # A stop string was met in one branch: that branch's text ends before it, the others stand as far as they came.
    stopped, length = request.stopped
    text, runs = "", 0
    for branch, i in order:
        assert branch.stream is not None
        piece = branch.stream.pieces[i]
        if branch is stopped:
            piece = piece[: max(0, length - runs)]
            runs += len(branch.stream.pieces[i])
        text += piece
    return text


def _parse(request: Request, text: str) -> tuple[Document | None, str | None]:
    if request.error is not None:
        return None, request.error
    if request.tokens is None:
        return Document(None, text), None
    dialect = request.tokens.dialect
    if request.prompt_thinking and dialect.think is not None:
        # The prompt opened the thinking, so the generated text alone would not parse.
        text = dialect.think.open + dialect.sep + text.removeprefix(dialect.sep)
    if request.finish_reason != "stop" and dialect.think is not None:
        # Cut between the thinking and the answer: what there is of the separator is the beginning of nothing.
        head, closed, rest = text.rpartition(dialect.think.close)
        text = head + closed if closed and dialect.answer_sep.startswith(rest) else text
    try:
        return parse(text, dialect), None
    except StructureError as error:
        cut = "" if request.finish_reason == "stop" else f"cut short ({request.finish_reason}): "
        return None, f"{cut}{error}"


def _answer(tokens: TokenDialect | None, text: str, *, thinking: bool) -> str:
    think = tokens.dialect.think if tokens is not None else None
    if think is None:
        answer = text
    else:
        _, closed, answer = text.rpartition(think.close)
        if not closed and (thinking or think.open in text):
            answer = ""  # cut short in the middle of its thinking
    return answer.strip().removeprefix("Answer:").strip()
