"""What chat and text completions check and prepare in the same way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import RequestError
from . import logs
from .errors import invalid
from .streaming import Ask
from .translate import check_length, refuse, sampling
from .wire import Sampling

if TYPE_CHECKING:
    from .runner import Runner


def check_stream(request: Sampling) -> None:
    """Raise `ApiError` for options of streams where there is none, and for branches that cannot be streamed."""
    branches = request.multiverse is not None and request.multiverse.branches
    if not request.stream:
        if request.stream_options is not None:
            raise invalid("stream_options needs stream: true", "stream_options")
        if branches:
            raise invalid("multiverse.branches needs stream: true", "multiverse.branches")
    elif branches and (request.n or 1) > 1:
        raise invalid(f"n={request.n} cannot be had with multiverse.branches: ask for each by itself", "n")


def note(request: Sampling) -> None:
    """What the log says of a request."""
    logs.note(stream=bool(request.stream))
    if request.user is not None:
        logs.note(user=request.user)


def asks(request: Sampling, runner: Runner, prompts: Sequence[list[int]], param: str) -> list[Ask]:
    """The generations that a request needs, `n` for each prompt.

    Raises:
        ApiError: 400, naming the parameter; `param` is the one that the prompts come from.
    """
    if request.multiverse is not None and request.multiverse.branches and len(prompts) > 1:
        raise invalid(f"{len(prompts)} prompts cannot be had with multiverse.branches: ask each by itself", param)
    wanted: list[Ask] = []
    for number, prompt in enumerate(prompts):
        at = f"{param}.{number}" if len(prompts) > 1 else param
        check_length(prompt, runner.settings, at)
        params = sampling(request, runner.settings, most_room=max(1, runner.llm.engine.slots.size - len(prompt)))
        try:
            runner.llm.engine.check(prompt, params)
        except RequestError as error:
            raise refuse(error, at) from None
        wanted += [Ask(prompt, params, sample) for sample in range(request.n or 1)]
    return wanted
