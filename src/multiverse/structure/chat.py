"""Chats as token ids: a template writes control tokens, messages are text, and earlier answers may hold structure.

Messages go through the template with marks in the place of what must not be read as it stands: control tokens in anybody's
text, and the thinking and answer of earlier answers. So the template sees no control token that a user wrote, what it does to
the text otherwise (stripping, say) is done as ever, and what becomes of each part is known without looking for its text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

from ..errors import RequestError
from .earlier import Answer, read_answer
from .plain import MARK, MARKED, PlainEncoder, control_tokens, mark, pattern_of, special_tokens
from .tokens import TokenDialect

Known = Mapping[str, Sequence[int]]


class ChatPrompt(NamedTuple):
    """A chat as the template has written it.

    Attributes:
        token_ids: the prompt.
        left_out: what the template has left out of it, such as ``messages.1.reasoning``.
    """

    token_ids: list[int]
    left_out: tuple[str, ...] = ()


class ChatForm(NamedTuple):
    """How chats with a model are written, beside its template.

    Attributes:
        switches: variables of the template, such as ``enable_thinking``.
        instructions: texts at the end of the user's messages in which the dialect's tags are tags, as the model saw them in its
            training.
    """

    switches: Mapping[str, Any] = MappingProxyType({})
    instructions: tuple[str, ...] = ()


class ChatEncoder:
    """Encodes chats for one tokenizer.

    Args:
        tokenizer: a Hugging Face tokenizer with a chat template.
        tokens: the dialect of the answers; `None` for a plain autoregressive model.
        form: how chats are written.
    """

    def __init__(self, tokenizer: Any, tokens: TokenDialect | None, form: ChatForm = ChatForm()) -> None:  # noqa: B008
        self.tokenizer, self.tokens, self.form = tokenizer, tokens, form
        self._tags = {tokens.tag(role): token_id for role, token_id in tokens.ids.items()} if tokens is not None else {}
        self._made = lru_cache(maxsize=4)(self._make)

    def __call__(self, messages: Sequence[Mapping[str, Any]], known: Known | None = None) -> ChatPrompt:
        """Token ids of a chat with the generation prompt.

        Earlier answers that are documents are tokenised as they were generated, segment by segment, so that the prefix cache
        has them. One that is none (it speaks of tags, or was cut off) is text.

        Args:
            messages: with ``role`` and ``content``; an answer may have its ``reasoning`` apart.
            known: token ids of earlier answers by their content, for those who have them.

        Raises:
            RequestError: the template refuses the messages, or rewrites them so that they cannot be followed.
        """
        plain, own = self._encoders()
        reading = _Reading(plain, own, self.tokens, self._template, known or {}, self.form.instructions)
        given = [reading.given(number, message) for number, message in enumerate(messages)]
        text = self._render(given)
        left_out = [*reading.left_out(text), *self._lost(messages, reading.marked)]
        return ChatPrompt(reading.token_ids(text), tuple(dict.fromkeys(left_out)))

    def text(self, text: str) -> list[int]:
        """Token ids of a text in which nothing is a control token, without special tokens around it."""
        return self._encoders()[0].encode([text])

    @property
    def _template(self) -> str:
        return str(getattr(self.tokenizer, "chat_template", None) or "")

    def _encoders(self) -> tuple[PlainEncoder, re.Pattern[str]]:
        """What encodes texts, and what finds the control tokens that answers which are texts may not hold."""
        size = len(self.tokenizer) if hasattr(self.tokenizer, "__len__") else 0
        return self._made(self._template, size)

    def _make(self, template: str, size: int) -> tuple[PlainEncoder, re.Pattern[str]]:  # noqa: ARG002 (all that it depends on)
        plain = PlainEncoder(self.tokenizer, {**control_tokens(self.tokenizer), **self._tags})
        return plain, pattern_of({**special_tokens(self.tokenizer), **self._tags})

    def _render(self, messages: list[dict[str, Any]]) -> str:
        try:
            text: str = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, **self.form.switches
            )
        except Exception as error:  # templates refuse by raising exceptions of any kind
            raise RequestError(f"the model's chat template refuses these messages: {error}") from None
        return text

    def _lost(self, messages: Sequence[Mapping[str, Any]], marked: Mapping[int, dict[str, Any]]) -> Iterator[str]:
        """What the template leaves out, found by the same chat with a mark in the place of every text.

        Args:
            marked: messages that are in marks already, by their numbers.
        """
        if len(messages) < 2:
            return
        probe = _Probe(self._encoders()[0].pattern, self._template)
        chat = [marked.get(number) or probe.given(number, message) for number, message in enumerate(messages)]
        try:
            text = self._render(chat)
        except RequestError:  # it refuses a text that it does not know
            return
        found = set(MARK.findall(text))
        for name, marks in probe.marks.items():
            if not found.issuperset(marks):
                yield name if found.isdisjoint(marks) or not marks[:-1] else f"{name} (in part)"


def text_of(content: Any) -> str | None:
    """The content of a message as one text: parts of type text, a line each.

    Raises:
        RequestError: it holds something else.
    """
    if content is None or isinstance(content, str):
        return content
    parts = list(content) if isinstance(content, list | tuple) else [content]
    for part in parts:
        if not (isinstance(part, Mapping) and part.get("type", "text") == "text" and isinstance(part.get("text"), str)):
            raise RequestError(f"content is a text or a list of parts {{'type': 'text', 'text': …}}, not {str(part)[:60]!r}")
    return "\n".join(part["text"] for part in parts)


def _plain_message(message: Mapping[str, Any], template: str) -> dict[str, Any]:
    """A message with its content as one text, in a role that the template has."""
    plain = dict(message)
    if "content" in plain:
        plain["content"] = text_of(plain["content"])
    if plain.get("role") == "developer" and "developer" not in template:
        plain["role"] = "system"  # its older name
    return plain


class _Reading:
    """One chat on its way through the template.

    Attributes:
        own: finds what an answer that is a text may not hold as control tokens.
        marked: earlier answers with structure, as the template gets them, by the numbers of their messages.
    """

    def __init__(
        self,
        plain: PlainEncoder,
        own: re.Pattern[str],
        tokens: TokenDialect | None,
        template: str,
        known: Known,
        instructions: tuple[str, ...],
    ) -> None:
        self.plain, self.own, self.tokens, self.template, self.known = plain, own, tokens, template, known
        self.instructions = instructions
        self.marked: dict[int, dict[str, Any]] = {}
        # What each mark stands for.
        self._texts: list[str] = []
        # Stretches of the rendered chat that are tokenised as they were generated.
        self._stretches: dict[str, Sequence[int]] = {}
        self._answers: list[tuple[int, Answer, str, str]] = []

    def given(self, number: int, message: Mapping[str, Any]) -> dict[str, Any]:
        """A message as the template gets it."""
        plain = _plain_message(message, self.template)
        if plain.get("role") != "assistant":
            given = {key: value if key == "role" else self._escape(value, self.plain.pattern) for key, value in plain.items()}
            if plain.get("role") == "user" and isinstance(content := plain.get("content"), str):
                given["content"] = self._asked(content)
            return given
        answer = None
        content = str(plain.get("content") or "")
        if self.tokens is not None:
            answer = read_answer(content, _reasoning(plain), self.tokens, self.plain, self.known)
        elif content in self.known:
            answer = Answer("", content, (), tuple(self.known[content]), ())
        if answer is None:
            return {key: value if key == "role" else self._escape(value, self.own) for key, value in plain.items()}
        others = {key: self._escape(value, self.plain.pattern) for key, value in plain.items() if key not in _TAKEN}
        plain = {"role": plain["role"], **others}
        self.marked[number] = {**plain, "content": self._in_marks(number, answer)}
        return self.marked[number]

    def _asked(self, content: str) -> str:
        """A user's message: text, but for the tags in an instruction at its end."""
        body = content.rstrip()
        own = next((text for text in self.instructions if body.endswith(text)), None)
        if own is None or self.tokens is None:
            return str(self._escape(content, self.plain.pattern))
        tags = self.tokens.dialect.tags
        others = pattern_of(text for text in self.plain.control if text not in tags)
        head = self._escape(body.removesuffix(own), self.plain.pattern)
        return f"{head}{self._escape(own, others)}{content[len(body) :]}"

    def _in_marks(self, number: int, answer: Answer) -> str:
        """An earlier answer as marks, between the tags of its thinking."""
        think = self.tokens.dialect.think if self.tokens is not None else None
        sep = self.tokens.dialect.sep if self.tokens is not None else ""
        between = self.tokens.dialect.answer_sep if self.tokens is not None else ""
        inner = thought = own = ""
        if answer.thinking_ids:
            assert think is not None
            inner = self._mark(answer.thinking.removeprefix(sep).removesuffix(sep)) if answer.thinking.strip(sep) else ""
            thought = f"{think.open}{sep}{inner}{sep if inner else ''}{think.close}"
            self._stretches[thought] = self._stretches[f"{think.open}{inner}{think.close}"] = answer.thinking_ids
        body = answer.answer.rstrip()
        blank = answer.answer[len(body) :]
        if body:
            own = self._mark(body)
            if answer.answer_ids:
                self._stretches[own] = answer.answer_ids
        whole = f"{thought}{between if thought and own else ''}{own}"
        if whole:
            self._stretches[whole + blank] = answer.token_ids
        if whole and answer.stripped_ids:
            self._stretches[whole] = answer.stripped_ids
        self._answers.append((number, answer, inner, own))
        return whole + blank

    def _mark(self, text: str) -> str:
        self._texts.append(text)
        return mark(len(self._texts) - 1)

    def _escape(self, value: Any, pattern: re.Pattern[str]) -> Any:
        """Texts, at any depth, with marks in the place of control tokens, and of parts of them at the edges."""
        if isinstance(value, Mapping):
            return {key: item if key == "type" else self._escape(item, pattern) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._escape(item, pattern) for item in value]
        if not isinstance(value, str):
            return value
        body = value.strip()
        if not body:
            return value
        begin = value.index(body)
        first, last = self.plain.edges(body)
        inner = body[first : len(body) - last]
        # Characters that marks are made of are marked as well, so that what is left of one is known to be a broken mark.
        marked = re.sub(f"{pattern.pattern}|{MARKED.pattern}", lambda found: self._mark(found[0]), inner)
        head = self._mark(body[:first]) if first else ""
        tail = self._mark(body[len(body) - last :]) if last else ""
        return f"{value[:begin]}{head}{marked}{tail}{value[begin + len(body) :]}"

    def left_out(self, text: str) -> Iterator[str]:
        """Parts of earlier answers that are not in the rendered chat."""
        for number, _, inner, own in self._answers:
            if inner and inner not in text:
                yield f"messages.{number}.reasoning"
            if own and own not in text:
                yield f"messages.{number}.content"

    def token_ids(self, text: str) -> list[int]:
        """Token ids of the rendered chat."""
        stretches = pattern_of(self._stretches).pattern
        found = re.compile(f"(?P<own>{stretches})|{MARK.pattern}|(?P<control>{self.plain.pattern.pattern})")
        ids: list[int] = []
        parts: list[str | int] = []
        at = 0
        for match in found.finditer(text):
            parts.append(self._rest(text[at : match.start()]))
            at = match.end()
            if match["own"]:
                ids += [*self.plain.encode(parts), *self._stretches[match["own"]]]
                parts = []
            elif match["control"]:
                parts.append(self.plain.control[match["control"]])
            else:
                parts.append(self._texts[int(match["number"])])
        return [*ids, *self.plain.encode([*parts, self._rest(text[at:])])]

    def _rest(self, text: str) -> str:
        """What the template wrote between marks and control tokens."""
        if MARKED.search(text):
            raise RequestError(
                "the model's chat template rewrites the text of messages, so control tokens in it cannot be told from its own"
            )
        return text


_REASONING = ("reasoning", "reasoning_content")
_TAKEN = ("role", "content", *_REASONING)


def _reasoning(message: Mapping[str, Any]) -> str | None:
    return next((message[name] for name in _REASONING if isinstance(message.get(name), str)), None)


class _Probe:
    """A chat of marks, to see which of them the template writes.

    Attributes:
        marks: numbers of the marks of each text, by its name.
    """

    def __init__(self, control: re.Pattern[str], template: str) -> None:
        self._control, self._template = control, template
        self.marks: dict[str, list[str]] = {}
        self._count = 1 << 20  # others than those of `_Reading`

    def given(self, number: int, message: Mapping[str, Any]) -> dict[str, Any]:
        """A message with marks in the place of its texts; the control tokens of an answer stay between them."""
        plain = _plain_message(message, self._template)
        own = plain.get("role") == "assistant"
        for key in ("content", *_REASONING):
            if isinstance(plain.get(key), str) and plain[key].strip():
                name = f"messages.{number}.{key}"
                plain[key] = self._marked(name, plain[key]) if own else self._mark(name)
        return plain

    def _marked(self, name: str, text: str) -> str:
        at, out = 0, ""
        for match in [*self._control.finditer(text), None]:
            end = match.start() if match is not None else len(text)
            run = text[at:end]
            body = run.strip()
            out += run.replace(body, self._mark(name)) if body else run
            if match is not None:
                out += match[0]
                at = match.end()
        return out

    def _mark(self, name: str) -> str:
        self._count += 1
        self.marks.setdefault(name, []).append(str(self._count))
        return mark(self._count)
