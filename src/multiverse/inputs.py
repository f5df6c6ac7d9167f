"""What users give to a model, checked: prompts, conversations, parameters. No torch.

Whatever cannot be honoured, of any type, is a `RequestError` that names the value and what it should be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from os import PathLike
from typing import Any, cast, get_args

from .common import QuantizeChoice
from .engine.params import SamplingParams
from .engine.token_ids import as_list, as_lists
from .errors import RequestError
from .prompting import Mode, Prompting
from .structure import DIALECTS, Dialect, Joins, Positions

Prompt = str | Sequence[int]
Messages = Sequence[Mapping[str, Any]]

ROLES = ("system", "developer", "user", "assistant", "tool")
"""Roles of messages that every template may be given; a template may name more."""
_MODES = ("parallel", "sequential", "as-is", None)


def prompts_of(given: Any) -> list[Any]:
    """The prompts of a call as a list: each a text or token ids; one alone is a list of one."""
    given = _listed(as_lists(given))
    if isinstance(given, str) or (isinstance(given, list) and given and _is_whole(given[0])):
        return [given]
    if not isinstance(given, list):
        raise RequestError(f"{brief(given)} is no prompt: give a text, token ids, or a list of them")
    return given


def conversations_of(given: Any) -> list[Any]:
    """The conversations of a call as a list; one alone is a list of one."""
    if as_lists(given) is not given:
        raise RequestError("chat takes messages, and these are token ids: give them to generate()")
    if isinstance(given, str | Mapping):
        return [given]  # refused with what to write, in `messages_of`
    given = _listed(given)
    if not isinstance(given, list):
        raise RequestError(f"{brief(given)} is no conversation: {_MESSAGES}")
    return [given] if given and isinstance(given[0], Mapping) else given


def single(given: Any) -> Any:
    """One prompt or conversation; a list of them is refused."""
    given = _listed(as_list(given))
    if isinstance(given, list) and given and not (_is_whole(given[0]) or isinstance(given[0], Mapping)):
        raise RequestError(f"{brief(given)} is not one prompt: stream takes a text, token ids, or the messages of one chat")
    return messages_of(given) if isinstance(given, Mapping) else given


def text_or_ids(prompt: Any, vocabulary: int) -> str | list[int]:
    """One prompt: a text with something in it, or token ids."""
    prompt = _listed(as_list(prompt))
    if isinstance(prompt, str):
        if not prompt.strip():
            raise RequestError("the prompt is empty: write a question")
        return valid_text(prompt, "the prompt")
    if not isinstance(prompt, list):
        raise RequestError(f"{brief(prompt)} is no prompt: give a text, or a list of token ids")
    for token in prompt:
        if not _is_whole(token):
            raise RequestError(f"{brief(token)} is no token id: a prompt is a text, or a list of whole numbers")
        if not 0 <= token < vocabulary:
            raise RequestError(f"token id {token} is outside the vocabulary (0 to {vocabulary - 1})")
    return [int(token) for token in prompt]


def valid_text(text: str, what: str) -> str:
    """The text, if it can be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RequestError(
            f"{what} is not valid Unicode (half a character at {error.start}): decode its bytes as UTF-8"
        ) from None
    return text


_MESSAGES = "give messages, [{'role': 'user', 'content': '...'}]"


def messages_of(given: Any, template: str | None = None) -> list[dict[str, Any]]:
    """The messages of one conversation, each with its content as one text.

    Args:
        given: messages; their content is a text, or parts of type text, which become a line each.
        template: the model's chat template, which may name roles of its own.
    """
    if isinstance(given, str):
        raise RequestError(f"chat takes messages, not a text: [{{'role': 'user', 'content': {given[:40]!r}}}]")
    if isinstance(given, Mapping):
        raise RequestError(f"chat takes a list of messages, not one alone: [{brief(dict(given))}]")
    given = _listed(given)
    if not isinstance(given, list):
        raise RequestError(f"{brief(given)} is no conversation: {_MESSAGES}")
    messages = [_message(message, f"message {number}", template) for number, message in enumerate(given)]
    if not messages or not messages[-1]["content"].strip():
        raise RequestError("the conversation is empty: its last message needs some content")
    return messages


def _message(given: Any, name: str, template: str | None) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise RequestError(f"{name} is {brief(given)}: {_MESSAGES}")
    role = given.get("role")
    if role is None:
        raise RequestError(f"{name} has no role: give 'user', 'assistant' or 'system' beside its content")
    if not isinstance(role, str) or (role not in ROLES and not _names(template, role)):
        raise RequestError(f"{name} has the role {brief(role)}: it must be {', '.join(map(repr, ROLES[:-1]))} or {ROLES[-1]!r}")
    message = {**given, "role": role, "content": _content(given.get("content"), name)}
    for key in ("name", "reasoning", "reasoning_content"):
        value = message.get(key)
        if not isinstance(value, str | None):
            raise RequestError(f"{key} of {name} is {brief(value)}: it must be a text")
        if value is not None:
            valid_text(value, f"{key} of {name}")
    return message


def _names(template: str | None, role: str) -> bool:
    """Whether a chat template names a role."""
    return template is not None and (f"'{role}'" in template or f'"{role}"' in template)


def _content(content: Any, name: str) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return valid_text(content, f"the content of {name}")
    if not isinstance(content, list | tuple):
        raise RequestError(f"the content of {name} is {brief(content)}: it must be a text, or a list of parts of type text")
    return "\n".join(_part(part, f"part {number} of {name}") for number, part in enumerate(content))


def _part(part: Any, name: str) -> str:
    if isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return valid_text(part["text"], name)
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind is not None and kind != "text":
        raise RequestError(f"{name} is of type {brief(kind)}, which the model cannot read: parts are of type 'text'")
    raise RequestError(f"{name} is {brief(part)}: it must be {{'type': 'text', 'text': '...'}}")


def as_asked(messages: list[dict[str, Any]], mode: Mode | None, prompting: Prompting | None) -> list[dict[str, Any]]:
    """The messages as the model was trained to be asked: with the instruction of this mode, if its training had any."""
    return prompting.instruct_chat(messages, mode) if mode is not None and prompting is not None else messages


def mode_of(given: Any) -> Mode | None:
    """A mode; ``as-is`` is another name of `None`."""
    if isinstance(given, str | None) and given in _MODES:
        known: dict[Any, Mode | None] = {"parallel": "parallel", "sequential": "sequential"}
        return known.get(given)
    raise RequestError(f"mode={brief(given)} is not valid: it must be 'parallel', 'sequential' or None")


def params_of(given: Any, count: int, mode: Mode | None = None, *, chat: bool = False) -> list[SamplingParams]:
    """The parameters of each of so many prompts: one for all, or a list of them; `None` takes the defaults.

    Args:
        mode: ``sequential`` keeps the model from forking.
        chat: they are for answers to chats.
    """
    if given is None:
        given = SamplingParams()
    if isinstance(given, SamplingParams):
        each = [given] * count
    elif isinstance(given, list | tuple):
        each = list(given)
    else:
        each = [given]
    for own in each:
        if not isinstance(own, SamplingParams):
            raise RequestError(f"{brief(own)} is no SamplingParams: write {_written(own)}")
    if len(each) != count:
        raise RequestError(f"{len(each)} sampling parameters for {count} prompts: give one for all, or one per prompt")
    each = [own.for_chat() for own in each] if chat else each
    return [replace(own, max_depth=0) for own in each] if mode == "sequential" else each


def _written(params: Any) -> str:
    """A dictionary as the parameters that it stands for."""
    if isinstance(params, Mapping) and params and all(isinstance(name, str) for name in params):
        return f"SamplingParams({brief(', '.join(f'{name}={value!r}' for name, value in params.items()), quoted=False)})"
    return "SamplingParams(temperature=0), for example"


def priority_of(given: Any) -> int:
    """A priority."""
    if isinstance(given, bool) or not isinstance(given, Integral):
        raise RequestError(f"priority={brief(given)} is not valid: it must be a whole number")
    return int(given)


def called(function: Any, name: str) -> None:
    """Raise `RequestError` unless this can be called, or is `None`."""
    if function is not None and not callable(function):
        raise RequestError(f"{name}={brief(function)} is not valid: it must be a function")


def dialect_of(given: Dialect | str | None) -> Dialect | None:
    """A dialect, also by its name."""
    if isinstance(given, Dialect | None):
        return given
    if isinstance(given, str) and given in DIALECTS:
        return DIALECTS[given]
    raise RequestError(f"dialect={brief(given)} is not known: it must be a Dialect, or one of {', '.join(DIALECTS)}")


def positions_of(given: str | None) -> Positions | None:
    """A layout by its name."""
    for name in get_args(Positions):
        if given == name:
            return cast(Positions, name)
    if given is not None:
        raise RequestError(f"layout={brief(given)} is not known: it must be one of {', '.join(get_args(Positions))}, or None")
    return None


def quantize_of(given: str | None) -> QuantizeChoice:
    """How weights are quantised; `None` is ``none``."""
    for name in get_args(QuantizeChoice):
        if given == name:
            return cast(QuantizeChoice, name)
    if given is not None:
        raise RequestError(f"quantize={brief(given)} is not known: it must be one of {', '.join(get_args(QuantizeChoice))}")
    return "none"


def join_of(given: Joins | None) -> Joins | None:
    """A join, checked."""
    if given is not None and given not in get_args(Joins):
        raise RequestError(f"join={brief(given)} is not known: it must be one of {', '.join(get_args(Joins))}, or None")
    return given


_ARGUMENTS: dict[str, tuple[Any, str]] = {
    "model": (str | PathLike | None, "a name, a folder, a file or a hub id"),
    "tensor_parallel": (Integral, "a whole number of processes, 1 or more"),
    "kv_memory": (Integral, "a whole number of bytes, or None"),
    "max_batch_tokens": (Integral, "a whole number, 1 or more"),
    "max_requests": (Integral, "a whole number, 1 or more"),
    "max_batch_branches": (Integral, "a whole number, 1 or more"),
    "prefix_cache": (bool, "true or false"),
    "packed_linears": (bool, "true or false"),
    "deterministic": (bool, "true or false"),
    "instruction_file": (str | PathLike | None, "the path of a text file"),
}

_RENAMED = {"packed": ": it is now called 'packed_linears'"}


def check_arguments(given: Mapping[str, Any]) -> None:
    """Raise `RequestError` for an argument of `LLM` of a type that it cannot have."""
    for name, value in given.items():
        if name == "kv_memory" and value is None:
            continue
        if name not in _ARGUMENTS:
            raise TypeError(f"LLM() has no argument {name!r}{_RENAMED.get(name, '')}")
        kind, allowed = _ARGUMENTS[name]
        number = _is_whole(value)
        fits = number and value >= 1 if kind is Integral else isinstance(value, kind)
        if not fits:
            raise RequestError(f"{name}={brief(value)} is not valid: it must be {allowed}")


def each_named(batch: Sequence[Any], take: Callable[[Any], Any]) -> list[Any]:
    """What `take` makes of each prompt; an error names the prompt's index."""
    return [_named(index, prompt, take, len(batch)) for index, prompt in enumerate(batch)]


def _named(index: int, prompt: Any, take: Callable[[Any], Any], count: int) -> Any:
    try:
        return take(prompt)
    except RequestError as error:
        raise RequestError(f"prompt {index}: {error}" if count > 1 else str(error)) from None


def brief(value: Any, *, quoted: bool = True) -> str:
    """A value in an error message, cut to a readable length."""
    text = repr(value) if quoted else str(value)
    text = " ".join(text.split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _listed(given: Any) -> Any:
    """Iterators and sequences as lists; the rest as it is."""
    if isinstance(given, Iterator):
        return list(given)
    return list(given) if isinstance(given, Sequence) and not isinstance(given, str | bytes | bytearray | memoryview) else given
