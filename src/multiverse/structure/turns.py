"""Where the answers of a chat stand in a prompt, as its template writes them.

Some models were trained with an instruction that names the tags, as their tokens, and that need not be balanced. There only the
answers are structure: the tags in all other turns are text that happens to consist of tags.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from itertools import takewhile
from typing import Any, NamedTuple


class Turns(NamedTuple):
    """What is around an answer.

    Attributes:
        header: tokens with which the template begins an answer.
        end: the token with which it ends one.
    """

    header: tuple[int, ...]
    end: int

    def structural(self, token_ids: Sequence[int], tags: Container[int], text: int) -> list[int]:
        """The tokens of a prompt, those tags replaced by this token of text that stand outside of its answers.

        A prompt without the beginning of any answer is no chat, and stays as it is.
        """
        found, inside, size = list(token_ids), False, len(self.header)
        first = self.header[0]
        behind = {at + size for at, token in enumerate(found) if token == first and tuple(found[at : at + size]) == self.header}
        if not behind:
            return found
        for at, token in enumerate(found):
            inside = at in behind or (inside and token_ids[at - 1] != self.end)
            if not inside and token in tags:
                found[at] = text
        return found


def turns_of(tokenizer: Any, switches: Mapping[str, Any]) -> Turns | None:
    """What a tokenizer's chat template writes around answers; `None` if their beginning is no control token, or it has none.

    Args:
        switches: of the template.
    """
    if getattr(tokenizer, "chat_template", None) is None:
        return None
    question, answer = [{"role": "user", "content": "question"}], "answer"

    def rendered(messages: Sequence[Mapping[str, str]], *, ask: bool) -> str:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask, **switches))

    asked, before = rendered(question, ask=True), rendered(question, ask=False)
    whole = rendered([*question, {"role": "assistant", "content": answer}], ask=False)
    # Of what stands before an answer, what stands there in earlier turns too; without line ends, which may join what follows.
    pairs = zip(asked[len(before) :], whole[len(before) : whole.rindex(answer)], strict=False)
    header = "".join(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)).rstrip()
    ids = tuple(tokenizer.encode(header, add_special_tokens=False)) if header else ()
    return Turns(ids, end_of_turn(tokenizer)) if ids and ids[0] in tokenizer.added_tokens_decoder else None


def end_of_turn(tokenizer: Any) -> int:
    """The end-of-turn token: the one that the chat template writes after an answer, or else the end-of-text token."""
    answer = "answer"
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "question"}, {"role": "assistant", "content": answer}], tokenize=False
    )
    behind = tokenizer.encode(text[text.rindex(answer) + len(answer) :], add_special_tokens=False)
    markers = tokenizer.added_tokens_decoder
    return next((int(token) for token in behind[:1] if token in markers), int(tokenizer.eos_token_id))
