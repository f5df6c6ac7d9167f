r"""Families of models that fork: how the models of each are asked, sampled and read. No torch.

A `Family` is a value; whatever differs between families stands in one, or in its `Dialect`, and nothing asks for a name.
`recognise` finds the family of a model: by what its configuration notes, the tags of its tokenizer, and its name.

LLM("npr-4b").recognised        # Recognised(family=..., why="its tokenizer has the tags of npr", note=None)
LLM("./mine", preset="none")    # asked as a plain model of its dialect
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from . import answers
from .answers import Reader
from .errors import DialectError, ModelError, RequestError
from .prompting import DEFAULT, Mode, Prompting, trained_here
from .structure import DIALECTS, ChatForm, Dialect, Positions, TokenDialect, read_dialect, resolve, turns_of
from .structure import bind as bind_dialect

INSTRUCTION_FILE = "instruction.txt"
"""A file of a model's folder that holds the instruction for parallel thinking, in place of the preset's."""

_SAVED_AS = "multiverse_preset"
AUTO, _NONE = "auto", "none"


@dataclass(frozen=True)
class Family:
    r"""How the models of one family are asked, sampled and read.

    Attributes:
        name: as in ``preset="npr"``.
        title: what it is called.
        dialects: names of its dialects; the first is the one that its published models write.
        checkpoints: its published models, by their names in `models.registry.ENTRIES`.
        base: the model that it is trained from, by its name there.
        names: finds the family in the name of a folder or hub id.
        prompting: the instructions. ``{goal}``, ``{outline}``, ``{path}`` and ``{conclusion}`` stand for the opening tags.
        asks_for_box: the instructions ask for a final answer within ``\boxed{}``.
        tags_in_prompt: the instruction's tags are the model's own tokens, as they were in its training, and no structure: of a
            prompt only its answers are.
        switches: of the chat template. None of the families is given a system message: what the template writes by itself
            stands (Qwen2.5's does).
        end_tokens: tokens that end a text, beside those that the model's own files name.
        sampling: sampling parameters of the published runs, by the names of `SamplingParams`.
        read_answer: finds the answer in what follows the thinking, or in the whole text where a dialect has no tags for it;
            `None` leaves that to the dialect.
    """

    name: str
    title: str
    dialects: tuple[str, ...]
    checkpoints: tuple[str, ...]
    base: str
    names: str
    prompting: Prompting = DEFAULT
    asks_for_box: bool = False
    tags_in_prompt: bool = False
    switches: Mapping[str, Any] = field(default_factory=dict)
    end_tokens: tuple[str, ...] = ()
    sampling: Mapping[str, Any] = field(default_factory=dict)
    read_answer: Reader | None = None

    def is_named(self, name: str) -> bool:
        """Whether a folder or hub id is called like a model of this family."""
        return re.search(self.names, name, re.IGNORECASE) is not None

    def prompting_of(self, dialect: Dialect | None, instruction: str | None = None) -> Prompting:
        """The instructions for a dialect.

        Args:
            instruction: the one that asks for parallel thinking, in place of the family's.
        """
        filled = {mode: _filled(text, dialect) for mode, text in self.prompting.instructions.items()}
        return replace(self.prompting, instructions=filled | ({"parallel": instruction} if instruction is not None else {}))

    def end_ids(self, tokenizer: Any) -> frozenset[int]:
        """Ids of `end_tokens` that a tokenizer has."""
        known = getattr(tokenizer, "added_tokens_decoder", {})
        return frozenset(int(token_id) for token_id, token in known.items() if str(token.content) in self.end_tokens)

    def form_of(self, prompting: Prompting) -> ChatForm:
        """How chats are written that have these instructions."""
        return ChatForm(self.switches, tuple(prompting.instructions.values()) if self.tags_in_prompt else ())


def _filled(text: str, dialect: Dialect | None) -> str:
    for name in ("goal", "outline", "path", "conclusion"):
        tag = getattr(dialect, name, None)
        text = text.replace(f"{{{name}}}", tag.open if tag is not None else name)
    return text


_BOXED = "Reason step by step, and put the final answer within \\boxed{}."

MULTIVERSE = Family(
    name="multiverse",
    title="Multiverse",
    dialects=("multiverse",),
    checkpoints=("multiverse-32b",),
    base="qwen2.5-32b",
    names=r"multiverse-?32b",
    end_tokens=("<|im_end|>",),
    sampling={"temperature": 0.6, "top_p": 0.95},
    read_answer=answers.named,
)
"""The paper's models. Limits are left to the caller: the paper's runs had 32,768 tokens, its engine's example 8,000."""

NPR = Family(
    name="npr",
    title="Native Parallel Reasoner",
    dialects=("npr",),
    checkpoints=("npr-4b",),
    base="qwen3-4b",
    names=r"(^|[^a-z])npr([^a-z]|$)|native-?parallel-?reason",
    prompting=Prompting(
        {
            "parallel": "Solve this in blocks of work that can be done side by side. A block opens with {goal}: it lists plans "
            "that do not depend on each other, numbered from 1, each in a {outline} of its own. Then every plan is worked out "
            "by itself, in a {path} of the same number, and a {conclusion} brings together what the steps have found. Use as "
            "many blocks as the question needs, and give the final answer within \\boxed{}.",
            "sequential": _BOXED,
        },
        sep="\n\n",
    ),
    asks_for_box=True,
    tags_in_prompt=True,
    switches={"enable_thinking": False},
    end_tokens=("<|im_end|>", "<|endoftext|>"),
    sampling={
        "temperature": 1.0,
        "top_p": 0.7,
        "path_repetition_penalty": 1.02,
        "max_tokens": 30_000,
        "max_branch_tokens": 30_000,
    },
    read_answer=answers.boxed_or_said,
)
"""Its own instruction is long and not ours to copy: it is read from a file (see `INSTRUCTION_FILE`); this one is short."""

THREADWEAVER = Family(
    name="threadweaver",
    title="ThreadWeaver",
    dialects=("threadweaver", "threadweaver-conclusion"),
    checkpoints=(),
    base="qwen3-8b",
    names=r"thread-?_?weaver",
    prompting=Prompting({"parallel": _BOXED, "sequential": _BOXED}),
    asks_for_box=True,
    end_tokens=("<|im_end|>", "<|endoftext|>"),
    sampling={"temperature": 0.6, "top_p": 0.95, "max_tokens": 32_768, "max_branch_tokens": 32_768},
    read_answer=answers.boxed,
)

FAMILIES: dict[str, Family] = {family.name: family for family in (MULTIVERSE, NPR, THREADWEAVER)}
"""All of them by name."""


class Recognised(NamedTuple):
    """The family of a model, and how it is known.

    Attributes:
        family: `None` for a model of none.
        why: what it is known by.
        note: what is ambiguous about it, and how to decide that; `None` if nothing is.
    """

    family: Family | None
    why: str
    note: str | None = None

    @property
    def line(self) -> str | None:
        """What to tell a person who asks the model: what is ambiguous, or that it is asked in another way than most."""
        if self.note is None and self.family is not None and self.family.prompting != DEFAULT:
            return f"asked, sampled and read by the preset {self.family.name}: {self.why}"
        return self.note


def family_of(preset: Family | str) -> Family | None:
    """A preset, also by its name; `None` for ``none``.

    Raises:
        RequestError: there is no such preset.
    """
    if isinstance(preset, Family):
        return preset
    if not isinstance(preset, str) or (preset != _NONE and preset not in FAMILIES):
        raise RequestError(f"preset={preset!r} is not known: use auto, none, {', '.join(FAMILIES)}, or a Family")
    return FAMILIES.get(preset)


def reader_of(dialect: Dialect) -> Reader | None:
    """What reads the answers of documents in a dialect; `None` if it is of no family."""
    return next((family.read_answer for family in FAMILIES.values() if dialect.name in family.dialects), None)


def choose(preset: Family | str, name: str, tokenizer: Any, config: Any, dialect: Dialect | None = None) -> Recognised:
    """The family that a preset stands for; with ``auto``, that of the model. What is ambiguous there is warned of.

    Args:
        name, tokenizer, config, dialect: of the model, as in `recognise`.

    Raises:
        RequestError: there is no such preset.
        ModelError: as `recognise`.
    """
    if preset != AUTO:
        return Recognised(family_of(preset), "it was given")
    found = recognise(name, tokenizer, config, dialect)
    if found.note is not None:
        warnings.warn(f"{name}: {found.note}", stacklevel=3)
    return found


class Bound(NamedTuple):
    """How one model is asked.

    Attributes:
        tokens: its dialect, bound to its tokenizer; `None` if it has no tags.
        form: how chats with it are written.
        prompting: the instructions of each mode.
    """

    tokens: TokenDialect | None
    form: ChatForm
    prompting: Prompting


def bind(
    family: Family | None,
    tokenizer: Any,
    config: Any,
    dialect: Dialect | None = None,
    instruction: str | None = None,
    *,
    layout: Positions | None = None,
) -> Bound:
    """A family, or none, bound to a model.

    Args:
        tokenizer: `None` where a server has it: then nothing is bound to it.
        dialect: what the model is loaded with; `None` takes the one in its configuration, or else one of the family whose tags
            its tokenizer has, or else the first known one of which it has them.
        instruction: the one that asks for parallel thinking, in place of the family's.
        layout: the layout, in place of what the dialect says.

    Raises:
        DialectError: the dialect does not fit the tokenizer, or there is a layout to set and no dialect.
        ModelError: the model writes a dialect of another family.
    """
    wanted = dialect if dialect is not None else read_dialect(config)
    tokens: TokenDialect | None = None
    if tokenizer is not None:
        of_family = [] if family is None else [name for name in family.dialects if has_tags(tokenizer, name)]
        if wanted is None and of_family:
            wanted = DIALECTS[of_family[0]]
        tokens = bind_dialect(tokenizer, config, wanted, layout=layout)
    own = tokens.dialect if tokens is not None else wanted
    if family is None:
        given: dict[Mode, str] = {} if instruction is None else {"parallel": instruction}
        return Bound(tokens, ChatForm(), replace(DEFAULT, instructions={**DEFAULT.instructions, **given}) if given else DEFAULT)
    if own is not None and own.name in DIALECTS and own.name not in family.dialects:
        raise ModelError(f"preset={family.name!r} does not fit: the model writes the dialect {own.name!r}; use preset='none'")
    prompting = family.prompting_of(own, instruction)
    form = family.form_of(prompting)
    if tokens is not None and family.tags_in_prompt:
        tokens.turns = turns_of(tokenizer, form.switches)
        if tokens.turns is None:  # nothing tells answers apart, so tags in an instruction would be structure
            form = form._replace(instructions=())
    return Bound(tokens, form, prompting)


def recognise(name: str, tokenizer: Any, config: Any, dialect: Dialect | None = None) -> Recognised:
    """The family of a model.

    In this order: the preset that its training noted; the dialect that it is loaded with, or that is saved with it; the tags
    that its tokenizer has; its name. A model that was trained here without a preset has none: it was asked as any other.

    Args:
        name: as it was given: a name of the registry, a folder or a hub id.
        tokenizer, config: of transformers; `None` where only the name is known.
        dialect: the dialect that it is loaded with, if that was said.

    Raises:
        ModelError: the noted preset is not known.
    """
    noted = getattr(config, _SAVED_AS, None)
    if noted is not None and noted != _NONE and noted not in FAMILIES:
        raise ModelError(f"{_SAVED_AS} in the model's config.json is {noted!r}: it must be none, {' or '.join(FAMILIES)}")
    if noted is not None and (dialect is None or noted == _NONE or dialect.name in FAMILIES[noted].dialects):
        return Recognised(FAMILIES.get(noted), f"its training noted the preset {noted}")
    if config is not None and trained_here(config):
        return Recognised(None, "it was trained by this package, without a preset")
    path = Path(name).expanduser()
    shown = path.resolve().name if path.exists() else name
    called = [family for family in FAMILIES.values() if family.is_named(shown)]
    own = dialect if dialect is not None else read_dialect(config)
    if own is not None:
        of_dialect = [family for family in FAMILIES.values() if own.name in family.dialects]
        if not of_dialect:
            return Recognised(None, f"its dialect {own.name} is of no family")
        how = "it is loaded with" if dialect is not None else "its configuration has"
        return Recognised(of_dialect[0], f"{how} the dialect {own.name}", _contradiction(of_dialect[0], called))
    tagged = _by_tags(tokenizer) if tokenizer is not None else []
    if tagged:
        return _chosen(tagged, called)
    if called:
        without = tokenizer is not None
        note = f"its tokenizer has none of the tags of {called[0].name}, so it decodes in one line" if without else None
        return Recognised(called[0], "its name", note)
    return Recognised(None, "neither its tags nor its name are known")


def _by_tags(tokenizer: Any) -> list[Family]:
    """The families whose tags are all single tokens."""
    return [family for family in FAMILIES.values() if any(has_tags(tokenizer, name) for name in family.dialects)]


def has_tags(tokenizer: Any, dialect: str) -> bool:
    """Whether all tags of a dialect are single tokens."""
    try:
        resolve(tokenizer, DIALECTS[dialect])
    except (DialectError, KeyError):
        return False
    return True


def _chosen(tagged: list[Family], called: list[Family]) -> Recognised:
    """One of several whose tags a tokenizer has: the one that the model is called by, or the first."""
    both = [family for family in tagged if family in called]
    family = (both or tagged)[0]
    why = f"its tokenizer has the tags of {family.name}"
    if len(tagged) == 1:
        return Recognised(family, why, _contradiction(family, called))
    several = _and(one.name for one in tagged)
    if len(both) == 1:
        return Recognised(family, f"its tokenizer has the tags of {several}, and its name is of {family.name}")
    return Recognised(
        family, why, f"its tokenizer has the tags of {several}: it is taken for {family.name}; preset= says otherwise"
    )


def _contradiction(family: Family, called: list[Family]) -> str | None:
    """What to say where the name is that of another family."""
    if not called or family in called:
        return None
    return f"it is called like {called[0].name}, but has the tags of {family.name}, which count; preset= says otherwise"


def _and(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def write_preset(config: Any, family: Family | None) -> None:
    """Note in a transformers model configuration by which preset the model was asked in training; nothing, if by none ever."""
    if family is not None or getattr(config, _SAVED_AS, None) is not None:
        setattr(config, _SAVED_AS, family.name if family is not None else _NONE)


def read_instruction(folder: str | Path | None, given: str | Path | None) -> str | None:
    """The instruction for parallel thinking in a file, white space at its ends left out; `None` if there is no such file.

    Args:
        folder: of the model, which may have one (`INSTRUCTION_FILE`); `None` if it is not here.
        given: another file, which has to be there.

    Raises:
        ModelError: it cannot be read, or is empty.
    """
    if given is None and (folder is None or not (Path(folder) / INSTRUCTION_FILE).is_file()):
        return None
    file = Path(given).expanduser() if given is not None else Path(folder or ".") / INSTRUCTION_FILE
    try:
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"the instruction in {str(file)!r} cannot be read ({error}): give a text file in UTF-8") from None
    if not text:
        raise ModelError(f"the instruction in {str(file)!r} is empty: write one, or leave the file out")
    return text
