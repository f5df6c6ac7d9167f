"""`LLM`: load a model, generate, stream and score."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Unpack, cast

from .engine import Event, FinishEvent, Generation, Request, SamplingParams, ScoringRequest
from .engine.engine import Engine, EngineOptions
from .engine.model import load
from .engine.token_ids import as_list, as_lists
from .errors import RequestError, StructureError
from .models.about import asked, read_about
from .prompting import read_instructed
from .structure import (
    DIALECTS,
    ChatEncoder,
    ChatPrompt,
    Dialect,
    Document,
    detect,
    encode,
    layout,
    parse,
    read_dialect,
    resolve,
)

Prompt = str | Sequence[int]
Messages = Sequence[dict[str, Any]]


class Score(NamedTuple):
    """Log-probabilities of a structured text, token by token, in document order.

    Attributes:
        token_ids, positions, branches, forced: as in `Generation`.
        logprobs: log-probability of each token given everything that its branch sees before it; `None` for the first one and
            for tokens that the engine forces.
    """

    token_ids: tuple[int, ...]
    positions: tuple[int, ...]
    branches: tuple[str, ...]
    forced: tuple[bool, ...]
    logprobs: tuple[float | None, ...]

    @property
    def total(self) -> float:
        """Sum of the log-probabilities of the tokens that are not forced."""
        return sum(value for value in self.logprobs if value is not None)


class LLM:
    """A model with the fork and join engine around it.

        llm = LLM()                                     # the embedded multiverse-mini
        out = llm.chat([[{"role": "user", "content": "…"}]], SamplingParams(temperature=0))[0]
        out.text; out.answer; out.tree; out.usage.parallelism; out.finish_reason

    Args:
        model: a name of `multiverse models`, a folder (of adapters, too), a GGUF file or a hub id; `None` is multiverse-mini.
        dialect: the tag set. `None` takes the one noted in the model's configuration, or the first known one whose tags are
            all single tokens of its tokenizer, and runs the model as a plain autoregressive one if there is none.
        dtype: ``auto`` is the type in which the weights were saved; else a torch type's name.
        device: ``auto`` takes CUDA when it is there.
        packed_linears: replace layers by faster ones (fused; on CPU native or packed linear layers) that agree to rounding.
        tensor_parallel: number of processes that the model is spread over, each with a GPU of its own where there are GPUs.
        deterministic: compute every row in one order: a request's tokens and log-probabilities are then the same bits whatever
            else is in the batch and in the prefix cache, and however it is cut into chunks, preempted or served in waves.
            Slower, and not with `tensor_parallel` (docs/deterministic.md).
        options: `kv_memory` (bytes for keys and values), `max_batch_tokens`, `max_requests`, `max_batch_branches`,
            `prefix_cache`; see `Engine`.

    Attributes:
        model_path: the name, folder or hub id that was loaded.
        tokenizer: the model's Hugging Face tokenizer.
        about: what the model says of itself to people; `None` if its folder says nothing.
        instructed: whether questions to it end with the instruction of a mode: it has the tags, and its training had it.
        engine: the engine, for callers that step it themselves.

    Raises:
        ModelError: the model cannot be found, loaded or joined.
        DialectError: the given dialect does not fit the tokenizer.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        dialect: Dialect | None = None,
        dtype: str = "auto",
        device: str = "auto",
        packed_linears: bool = True,
        tensor_parallel: int = 1,
        deterministic: bool = False,
        **options: Unpack[EngineOptions],
    ) -> None:
        if "packed" in options:
            raise TypeError("LLM() has no argument 'packed': it is now called 'packed_linears'")
        loaded = load(
            model,
            dtype=dtype,
            device=device,
            packed_linears=packed_linears,
            tensor_parallel=tensor_parallel,
            deterministic=deterministic,
        )
        wanted = dialect if dialect is not None else read_dialect(loaded.model.config)
        tokens = resolve(loaded.tokenizer, wanted) if wanted else detect(loaded.tokenizer, tuple(DIALECTS.values()))
        self.model_path = loaded.path
        self.tokenizer = loaded.tokenizer
        self.about = read_about(loaded.source)
        self.instructed = tokens is not None and read_instructed(loaded.model.config)
        self.engine = Engine(loaded, tokens, **options)
        self._chats = ChatEncoder(self.tokenizer, tokens)

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        priority: int = 0,
        on_finish: Callable[[int, Generation], None] | None = None,
    ) -> list[Generation]:
        """Continue raw prompts, all in one batch; the results are in the order of the prompts.

        Args:
            prompts: texts or token ids, also as a tokenizer returns them (``BatchEncoding``, arrays, tensors); one prompt alone
                is taken as a list of one.
            params: one for all, or one per prompt. With ``n`` above 1, a prompt's generations stand next to each other.
            priority: higher goes first, among all requests of the engine.
            on_finish: called with the result's index as each one finishes.

        Raises:
            RequestError: a prompt or parameter cannot be honoured. The message names the prompt's index; nothing has been run.
        """
        prompts = as_lists(prompts)
        alone = isinstance(prompts, str) or (len(prompts) > 0 and isinstance(prompts[0], int))
        batch = cast(Sequence[Prompt], [prompts] if alone else prompts)
        return self._run(_each(batch, self._encode), params, priority, on_finish)

    def chat(
        self,
        conversations: Messages | Sequence[Messages],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        priority: int = 0,
        on_finish: Callable[[int, Generation], None] | None = None,
    ) -> list[Generation]:
        """Answer conversations (lists of ``{"role", "content"}``) through the model's chat template; else as `generate`."""
        given: Any = conversations  # a text is a common slip, refused in `encode_chat`
        if as_lists(given) is not given:
            raise RequestError("chat takes messages, and these are token ids: give them to generate()")
        alone = isinstance(given, str) or (len(given) > 0 and isinstance(given[0], dict))
        batch = cast(Sequence[Messages], [given] if alone else given)
        shared = params if params is not None else SamplingParams()
        own = shared.for_chat() if isinstance(shared, SamplingParams) else [each.for_chat() for each in shared]
        return self._run(_each(batch, self.encode_chat), own, priority, on_finish)

    def stream(self, prompt: Prompt | Messages, params: SamplingParams | None = None) -> Iterator[Event]:
        """Run one prompt or conversation and yield its events as they happen; the last is a `FinishEvent`.

        Closing the iterator early aborts the request.

        Raises:
            RequestError: the prompt or a parameter cannot be honoured; ``n`` above 1, for one, which `generate` takes.
        """
        prompt = as_list(prompt)
        chat = not isinstance(prompt, str) and len(prompt) > 0 and isinstance(prompt[0], dict)
        token_ids = self.encode_chat(cast(Messages, prompt)) if chat else self._encode(cast(Prompt, prompt))
        shared = params if params is not None else SamplingParams()
        shared = shared.for_chat() if chat else shared
        if shared.n != 1:
            raise RequestError(f"n={shared.n} cannot be streamed: stream each separately, or use generate()")
        self.engine.check(token_ids, shared)  # refuse bad input here, not at the first event
        return self._events(token_ids, shared)

    def _events(self, token_ids: list[int], params: SamplingParams) -> Iterator[Event]:
        request = self.engine.submit(token_ids, params, listening=True)
        events: list[Event] = []
        try:
            # A step of another call advances this request too, and may have finished it.
            while not (events and isinstance(events[-1], FinishEvent)):
                if request.finish_reason is None:
                    self.engine.step()
                events = self.engine.drain(request)
                yield from events
        finally:
            self.engine.abort(request)

    def score(
        self, texts: str | Document | Sequence[str | Document | Sequence[int]], *, share_every: int | None = None
    ) -> list[Score]:
        """Log-probability of every token of structured texts, under the layout that their tags give them.

        Args:
            texts: canonical texts (tokenised segment by segment, as in training), documents, other texts, or token ids; one
                text alone is taken as a list of one.
            share_every: as in `SamplingParams`.

        Raises:
            RequestError: a text is empty, too long, or breaks the grammar of its own tags.
        """
        texts = as_lists(texts)
        alone = isinstance(texts, str | Document) or (len(texts) > 0 and isinstance(texts[0], int))
        batch = cast(Sequence[str | Document | Sequence[int]], [texts] if alone else texts)
        requests: list[ScoringRequest] = []
        try:
            for text in batch:
                requests.append(self.engine.submit_scoring(self._encode_document(text), share_every))
        except RequestError as error:
            for request in requests:
                self.engine.abort(request)
            raise RequestError(f"text {len(requests)}: {error}" if len(batch) > 1 else str(error)) from None
        self.engine.run([*requests])
        return [self._scored(request) for request in requests]

    def is_unlike(self, question: str) -> bool:
        """Whether a question is unlike those that the model was trained on, as far as its folder says how to tell (`About`).

        The mean log-probability of the question's tokens is held against the threshold of ``about.json``: one forward.
        """
        if self.about is None or self.about.least_logprob is None or getattr(self.tokenizer, "chat_template", None) is None:
            return False
        own = asked(self.tokenizer, question)
        try:
            request = self.engine.submit_scoring(own.token_ids, cached=False)
        except RequestError:  # not a valid prompt either, which is better said where it is answered
            return False
        self.engine.run([request])
        return self.about.is_unlike(own.mean(request.logprobs))

    def _scored(self, request: ScoringRequest) -> Score:
        owners = [branch.label for branch, start, end in request.tree.segments for _ in range(start, end)]
        if self.engine.tokens is None:
            positions, forced = tuple(range(len(owners))), (False,) * len(owners)
        else:
            where = layout(request.prompt, self.engine.tokens)
            positions, forced = where.positions, where.forced
        return Score(
            token_ids=tuple(request.prompt),
            positions=positions,
            branches=tuple(owners),
            forced=forced,
            logprobs=tuple(score.logprob if score is not None else None for score in request.prompt_scores or ()),
        )

    def _run(
        self,
        prompts: list[list[int]],
        params: SamplingParams | Sequence[SamplingParams] | None,
        priority: int,
        on_finish: Callable[[int, Generation], None] | None,
    ) -> list[Generation]:
        shared = params if params is not None else SamplingParams()
        each = [shared] * len(prompts) if isinstance(shared, SamplingParams) else list(shared)
        if len(each) != len(prompts):
            raise RequestError(
                f"{len(each)} sampling parameters for {len(prompts)} prompts: give one for all, or one per prompt"
            )
        requests: list[Request] = []
        for number, (prompt, own) in enumerate(zip(prompts, each, strict=True)):
            try:
                requests += self._submit(prompt, own, priority)
            except RequestError as error:
                for request in requests:
                    self.engine.abort(request)
                raise RequestError(f"prompt {number}: {error}" if len(prompts) > 1 else str(error)) from None
        index = {request.id: number for number, request in enumerate(requests)}
        results: dict[int, Generation] = {}

        def keep(request: Request) -> None:
            if request.id in index:
                results[index[request.id]] = self.engine.generation(request)
                if on_finish is not None:
                    on_finish(index[request.id], results[index[request.id]])

        self.engine.run(requests, keep)
        return [results[number] for number in range(len(requests))]

    def _submit(self, prompt: list[int], params: SamplingParams, priority: int) -> list[Request]:
        """Queue the samples of one prompt; the first prefills it for all."""
        first = self.engine.submit(prompt, params, priority=priority)
        others = range(1, params.n)
        return [first, *(self.engine.submit(prompt, params, priority=priority, leader=first, sample=i) for i in others)]

    def _encode(self, prompt: Prompt) -> list[int]:
        if isinstance(prompt, str):
            if not prompt.strip():
                raise RequestError("the prompt is empty: write a question")
            return list(self.tokenizer.encode(prompt))
        vocabulary = len(self.tokenizer)
        for token in prompt:
            if not 0 <= token < vocabulary:
                raise RequestError(f"token id {token} is outside the vocabulary (0 to {vocabulary - 1})")
        return list(prompt)

    def _encode_document(self, text: str | Document | Sequence[int]) -> list[int]:
        tokens = self.engine.tokens
        if not isinstance(text, str | Document):
            return self._encode(text)
        if tokens is None:
            if isinstance(text, Document):
                raise RequestError(f"{self.model_path!r} has no dialect to write a document in: score a text")
            return self._encode(text)
        document = text
        if isinstance(text, str):
            try:
                document = parse(text, tokens.dialect)
            except StructureError:  # not one whole document; a prompt before one, for example
                return self._encode(text)
        assert isinstance(document, Document)
        if document == Document(None, ""):
            raise RequestError("the text is empty")
        return list(encode(document, tokens).token_ids)

    def encode_chat(self, messages: Messages | str) -> list[int]:
        """Token ids of a chat with the generation prompt; as `read_chat`, and `RequestError` if its last message is empty."""
        if isinstance(messages, str):
            raise RequestError(f"chat takes messages, not a text: [{{'role': 'user', 'content': {messages[:40]!r}}}]")
        if not messages or not str(messages[-1].get("content", "")).strip():
            raise RequestError("the conversation is empty: its last message needs some content")
        return self.read_chat(messages).token_ids

    def read_chat(self, messages: Messages, known: Mapping[str, Sequence[int]] | None = None) -> ChatPrompt:
        """A chat with the generation prompt as token ids, and what the template leaves out of it.

        Control tokens and tags are read in the template's own text and in earlier answers only; in every other message they
        are plain text. Earlier answers that fork are tokenised as they were generated.

        Args:
            known: token ids of earlier answers by their content, for those who have kept them.

        Raises:
            RequestError: the model has no chat template, or that refuses the messages.
        """
        if getattr(self.tokenizer, "chat_template", None) is None:
            raise RequestError(f"{self.model_path!r} has no chat template: use generate() with a raw prompt")
        return self._chats(messages, known)


def _each(batch: Sequence[Any], encode: Callable[[Any], list[int]]) -> list[list[int]]:
    """Encode every prompt; an error names its index."""
    encoded = []
    for index, prompt in enumerate(batch):
        try:
            encoded.append(encode(prompt))
        except RequestError as error:
            raise RequestError(f"prompt {index}: {error}" if len(batch) > 1 else str(error)) from None
    return encoded
