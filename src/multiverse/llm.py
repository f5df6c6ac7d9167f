"""`LLM`: load a model, generate, stream and score."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack, cast

from .engine.params import SamplingParams
from .engine.scoring import Score, ScoringRequest
from .errors import RequestError, StructureError
from .families import AUTO, Family, Recognised, bind, choose, family_of, read_instruction
from .inputs import (
    Messages,
    Prompt,
    as_asked,
    called,
    check_arguments,
    conversations_of,
    dialect_of,
    each_named,
    join_of,
    messages_of,
    mode_of,
    params_of,
    positions_of,
    priority_of,
    prompts_of,
    quantize_of,
    single,
    text_or_ids,
)
from .models.about import asked, read_about
from .progress import counting, loading
from .prompting import Instruction, Mode, read_instructed
from .structure import ChatEncoder, ChatPrompt, Dialect, Document, Joins, Positions, TokenDialect, encode, parse

if TYPE_CHECKING:
    from .engine import Event, Generation, Request
    from .engine.engine import Engine, EngineOptions
    from .engine.generating import Generating
    from .engine.model import LoadedModel

    class LLMOptions(EngineOptions, total=False):
        """Keyword arguments of `LLM` beside those that it names."""

        layout: str | None
        join: Joins | None
        quantize: Literal["auto", "none", "int8", "int4"] | None
        preset: Family | str
        instruction_file: str | Path | None


Params = SamplingParams | Sequence[SamplingParams]


class LLM:
    """A model with the fork and join engine around it.

        llm = LLM()                                     # the embedded multiverse-mini
        out = llm.chat([{"role": "user", "content": "…"}], SamplingParams(temperature=0))[0]
        out.text; out.answer; out.tree; out.usage.parallelism; out.finish_reason

        with LLM("./my-model") as llm: ...              # frees its memory at the end, as `close` does

    Args:
        model: a name of `multiverse models`, a folder (of adapters, too), a GGUF file or a hub id; `None` is multiverse-mini.
        dialect: the tag set, or its name. `None` takes the one noted in the model's configuration, or the first known one whose
            tags are all single tokens of its tokenizer, and runs the model as a plain autoregressive one if there is none.
        dtype: ``auto`` is the type in which the weights were saved; else a torch type's name.
        device: ``auto`` takes CUDA when it is there.
        packed_linears: replace layers by faster ones (fused; on CPU native or packed linear layers) that agree to rounding.
        tensor_parallel: number of processes that the model is spread over, each with a GPU of its own where there are GPUs.
        deterministic: compute every row in one order: a request's tokens and log-probabilities are then the same bits whatever
            else is in the batch and in the prefix cache, and however it is cut into chunks, preempted or served in waves.
            Slower, and not with `tensor_parallel` (docs/deterministic.md).
        progress: show a bar while weights are loaded; `None` shows it where someone watches, on a terminal or in a notebook.
        options: in place of what the model's dialect says, `layout` (``engine`` or ``released``: docs/layouts.md) and `join`
            (``kv``, ``text`` or ``message``: docs/joins.md; text is the default where keys and values cannot be joined).
            `quantize` gives the weights of linear layers 8 or 4 bits on a CPU (``int8``, ``int4``: docs/quantisation.md);
            ``auto`` (the default) takes the bits of a GGUF file, and ``none`` or `None` unpacks those, too.
            `preset`, how models of its family are asked, sampled and read: ``auto`` (the default) recognises the family,
            ``none`` asks it as any model; or a name of `families.FAMILIES`, or a `Family` (docs/families.md).
            `instruction_file`, a text file with the instruction for parallel thinking, in place of the preset's. And those of
            the engine: `kv_memory` (bytes for keys and values), `max_batch_tokens`, `max_requests`, `max_batch_branches`,
            `prefix_cache`; see `Engine`.

    Attributes:
        model_path: the name, folder or hub id that was loaded.
        tokenizer: the model's Hugging Face tokenizer.
        about: what the model says of itself to people; `None` if its folder says nothing.
        recognised: the family whose preset it has, and how that was found.
        prompting: the instructions of each mode.
        instructed: whether questions to it end with the instruction of a mode: it has the tags, and its training had it.

    Raises:
        ModelError: the model cannot be found, loaded or joined.
        DialectError: the given dialect does not fit the tokenizer.
        RequestError: another argument is not valid.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        dialect: Dialect | str | None = None,
        dtype: str = "auto",
        device: str = "auto",
        packed_linears: bool = True,
        tensor_parallel: int = 1,
        deterministic: bool = False,
        progress: bool | None = None,
        **options: Unpack[LLMOptions],
    ) -> None:
        wanted, positions = dialect_of(dialect), positions_of(options.pop("layout", None))
        join, bits = join_of(options.pop("join", None)), quantize_of(options.pop("quantize", "auto"))
        preset, instruction_file = options.pop("preset", "auto"), options.pop("instruction_file", None)
        if preset != AUTO:
            family_of(preset)  # before anything is loaded
        switches = {"packed_linears": packed_linears, "deterministic": deterministic}
        files = {"model": model, "instruction_file": instruction_file}
        check_arguments({**files, "tensor_parallel": tensor_parallel, **switches, **options})
        # Here, so that importing this module needs neither torch nor transformers.
        from .engine.model import load

        with loading(progress):
            loaded = load(
                model,
                dtype=str(dtype).removeprefix("torch."),
                device=str(device),
                quantize=bits,
                packed_linears=packed_linears,
                tensor_parallel=tensor_parallel,
                deterministic=deterministic,
            )
        self.about = read_about(loaded.source)
        instruction = read_instruction(loaded.source, instruction_file)
        recognised = choose(preset, loaded.path, loaded.tokenizer, loaded.model.config, wanted)
        self._set_up(loaded, recognised, wanted, positions, join, instruction, cast("EngineOptions", options))

    @classmethod
    def of(
        cls,
        loaded: LoadedModel,
        *,
        dialect: Dialect | None = None,
        preset: Family | str = AUTO,
        instruction: str | None = None,
        **options: Unpack[EngineOptions],
    ) -> Self:
        """Around a model that is in memory already, such as one that is being trained (`engine.model.prepare`).

        Args:
            dialect: as in `LLM`.
            preset: as in `LLM`.
            **options: as in `LLM`.
            instruction: for parallel thinking, in place of the preset's.
        """
        llm = cls.__new__(cls)
        llm.about = None
        recognised = choose(preset, loaded.path, loaded.tokenizer, loaded.model.config, dialect)
        llm._set_up(loaded, recognised, dialect, None, None, instruction, options)
        return llm

    def _set_up(
        self,
        loaded: LoadedModel,
        recognised: Recognised,
        wanted: Dialect | None,
        positions: Positions | None,
        join: Joins | None,
        instruction: str | None,
        options: EngineOptions,
    ) -> None:
        from .engine.engine import Engine
        from .engine.model import with_join

        config = loaded.model.config
        self.model_path = loaded.path
        self.tokenizer = loaded.tokenizer
        self.recognised = recognised
        tokens, form, self.prompting = bind(self.family, loaded.tokenizer, config, wanted, instruction, layout=positions)
        tokens = with_join(tokens, join, loaded)
        if self.family is not None:
            loaded.stop_ids |= self.family.end_ids(loaded.tokenizer)
            loaded.read_answer = self.family.read_answer
        self.instructed = tokens is not None and read_instructed(config)
        self._engine: Engine | None = Engine(loaded, tokens, **options)
        self._chats = ChatEncoder(self.tokenizer, tokens, form)

    @property
    def family(self) -> Family | None:
        """The family whose preset the model has; `None` if it is of none."""
        return self.recognised.family

    def sampling(self, **given: Any) -> SamplingParams:
        """The sampling parameters of the model's preset, with these in their place; what calls without parameters have.

        A preset's `max_tokens` is lowered to three quarters of the tokens that there is room for (`room`).

        Raises:
            RequestError: a value is not valid.
        """
        preset = dict(self.family.sampling) if self.family is not None else {}
        if "max_tokens" in preset:
            preset["max_tokens"] = max(1, min(preset["max_tokens"], self.room * 3 // 4))
        return SamplingParams(**{**preset, **given})

    @property
    def room(self) -> int:
        """Most tokens that prompt and answer of a request may have together: what the memory for keys and values holds."""
        return self.engine.slots.size

    @property
    def engine(self) -> Engine:
        """The engine, for callers that step it themselves."""
        if self._engine is None:
            raise RequestError(f"this LLM ({self.model_path!r}) is closed: make another")
        return self._engine

    @property
    def tokens(self) -> TokenDialect | None:
        """The dialect bound to the tokenizer; `None` for a plain autoregressive model."""
        return self.engine.tokens

    @property
    def max_positions(self) -> int:
        """Longest chain of positions that the model was made for."""
        return self.engine.loaded.max_positions

    @property
    def vocabulary(self) -> int:
        """Number of token ids, those included that no token has."""
        return self.engine.loaded.vocabulary

    @property
    def quantized(self) -> str | None:
        """How weights of linear layers are held: ``int8``, ``int4``, ``gguf`` (as in the file); `None` is plain numbers."""
        return self.engine.loaded.quantized

    @property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end a text."""
        return self.engine.loaded.stop_ids

    def decode(self, token_ids: list[int]) -> str:
        """Token ids as text, tags included."""
        return self.engine.decode(token_ids)

    def check(self, prompt: list[int], params: SamplingParams) -> None:
        """Raise `RequestError` if a request could never run."""
        self.engine.check(prompt, params)

    def async_engine(self) -> Generating:
        """What runs generations for tasks of event loops; while it is open, nothing else may use this model."""
        from .engine.async_engine import AsyncEngine

        return AsyncEngine(self.engine)

    def close(self) -> None:
        """Abort what is running and free the model's memory, its keys and values, and its processes. May be called again."""
        engine, self._engine = self._engine, None
        if engine is not None:
            from .backends import release

            engine.close()
            del engine
            release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"LLM({self.model_path!r}{'' if self._engine is not None else ', closed'})"

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: Params | None = None,
        *,
        priority: int = 0,
        on_finish: Callable[[int, Generation], None] | None = None,
        progress: bool | None = None,
    ) -> list[Generation]:
        """Continue raw prompts, all in one batch; the results are in the order of the prompts.

        Args:
            prompts: texts or token ids, also as a tokenizer returns them (``BatchEncoding``, arrays, tensors); one prompt alone
                is taken as a list of one.
            params: one for all, or one per prompt; `None` is `sampling()`. With ``n`` above 1, a prompt's generations stand
                next to each other.
            priority: higher goes first, among all requests of the engine.
            on_finish: called with the result's index as each one finishes.
            progress: show a bar; `None` shows it for several results, on a terminal or in a notebook.

        Raises:
            RequestError: a prompt or parameter cannot be honoured. The message names the prompt's index; nothing has been run.
        """
        encoded = self.encode_prompts(prompts)
        return self._run(encoded, self.params_of(params, len(encoded)), priority, on_finish, progress)

    def encode_prompts(self, prompts: Prompt | Sequence[Prompt]) -> list[list[int]]:
        """Token ids of raw prompts as `generate` continues them; an error names the prompt's index."""
        return each_named(prompts_of(prompts), self._encode)

    def chat(
        self,
        conversations: Messages | Sequence[Messages],
        params: Params | None = None,
        *,
        mode: Instruction | None = "parallel",
        priority: int = 0,
        on_finish: Callable[[int, Generation], None] | None = None,
        progress: bool | None = None,
    ) -> list[Generation]:
        """Answer conversations (lists of ``{"role", "content"}``) through the model's chat template; else as `generate`.

        Args:
            mode: how the model is asked to think, as ``--mode`` of the command line. ``parallel`` and ``sequential`` end each
                question with the instruction that the model was trained with, unless it ends with one, and ``sequential`` keeps
                the model from forking; `None` leaves the messages as they are. A model without tags, or trained without
                instructions, gets none.
        """
        chats, asked_in = self.encode_conversations(conversations, mode)
        own = self.params_of(params, len(chats), asked_in, chat=True)
        left_out = [chat.left_out for chat, one in zip(chats, own, strict=True) for _ in range(one.n)]

        def tell(index: int, generation: Generation) -> None:
            assert on_finish is not None
            on_finish(index, replace(generation, left_out=left_out[index]))

        called(on_finish, "on_finish")
        prompts = [chat.token_ids for chat in chats]
        found = self._run(prompts, own, priority, tell if on_finish is not None else None, progress)
        return [replace(generation, left_out=lost) for generation, lost in zip(found, left_out, strict=True)]

    def params_of(
        self, params: Params | None, count: int, mode: Mode | None = None, *, chat: bool = False
    ) -> list[SamplingParams]:
        """The parameters of each of so many prompts, as `generate` and `chat` take them; `None` is `sampling()`."""
        return params_of(self.sampling() if params is None else params, count, mode, chat=chat)

    def encode_conversations(
        self, conversations: Messages | Sequence[Messages], mode: Instruction | None
    ) -> tuple[list[ChatPrompt], Mode | None]:
        """Conversations as `chat` asks them, and the mode; an error names the conversation's index."""
        asked_in = mode_of(mode)
        return each_named(conversations_of(conversations), lambda one: self._ask(one, asked_in)), asked_in

    def _ask(self, messages: Any, mode: Mode | None) -> ChatPrompt:
        checked = messages_of(messages, self._template)
        return self.read_chat(messages_of(as_asked(checked, mode, self.prompting if self.instructed else None), self._template))

    def stream(
        self, prompt: Prompt | Messages, params: SamplingParams | None = None, *, mode: Instruction | None = "parallel"
    ) -> Iterator[Event]:
        """Run one raw prompt or conversation and yield its events as they happen; the last is a `FinishEvent`.

        Closing the iterator early aborts the request.

        Args:
            prompt: a text or token ids, continued as they are; or messages, answered as by `chat`.
            mode: as in `chat`.

        Raises:
            RequestError: the prompt or a parameter cannot be honoured; ``n`` above 1, for one, which `generate` takes.
        """
        encoded = self.encode_one(prompt, params, mode)
        self.check(*encoded)  # here, not at the first event
        return self._events(*encoded)

    def encode_one(
        self, prompt: Prompt | Messages, params: SamplingParams | None, mode: Instruction | None
    ) -> tuple[list[int], SamplingParams]:
        """Token ids and parameters of what `stream` is given."""
        prompt = single(prompt)
        chat = isinstance(prompt, list) and len(prompt) > 0 and isinstance(prompt[0], Mapping)
        asked_in = mode_of(mode)
        token_ids = self._ask(prompt, asked_in).token_ids if chat else self._encode(prompt)
        (shared,) = self.params_of(params, 1, asked_in if chat else None, chat=chat)
        if shared.n != 1:
            raise RequestError(f"n={shared.n} cannot be streamed: stream each separately, or use generate()")
        return token_ids, shared

    def _events(self, token_ids: list[int], params: SamplingParams) -> Iterator[Event]:
        from .engine.events import FinishEvent

        engine = self.engine  # also of one that is closed meanwhile, which ends the request
        request = engine.submit(token_ids, params, listening=True)
        events: list[Event] = []
        try:
            # A step of another call advances this request too, and may have finished it.
            while not (events and isinstance(events[-1], FinishEvent)):
                if request.finish_reason is None:
                    engine.step()
                events = engine.drain(request)
                yield from events
        finally:
            engine.abort(request)

    def score(
        self,
        texts: str | Document | Sequence[str | Document | Sequence[int]],
        *,
        share_every: int | None = None,
        as_trained: bool = False,
    ) -> list[Score]:
        """Log-probability of every token of structured texts, under the layout that their tags give them.


        Args:
            texts: canonical texts (tokenised segment by segment, as in training), documents, other texts, or token ids; one
                text alone is taken as a list of one.
            share_every: as in `SamplingParams`.
            as_trained: in the layout ``released``, let later paths see what they see in training and not when they are decoded
                (docs/layouts.md). By default the scores are those with which the engine itself would have written the text.

        Raises:
            RequestError: a text is empty, too long, or breaks the grammar of its own tags.
        """
        batch = [texts] if isinstance(texts, Document) else prompts_of(texts)
        requests: list[ScoringRequest] = []
        try:
            for text in batch:
                requests.append(self.engine.submit_scoring(self._encode_document(text), share_every, trained=as_trained))
        except RequestError as error:
            for request in requests:
                self.engine.abort(request)
            raise RequestError(f"text {len(requests)}: {error}" if len(batch) > 1 else str(error)) from None
        self.engine.run([*requests])
        return [request.score() for request in requests]

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

    def _run(
        self,
        prompts: list[list[int]],
        params: list[SamplingParams],
        priority: int,
        on_finish: Callable[[int, Generation], None] | None,
        progress: bool | None,
    ) -> list[Generation]:
        priority = priority_of(priority)
        called(on_finish, "on_finish")
        requests: list[Request] = []
        for number, (prompt, own) in enumerate(zip(prompts, params, strict=True)):
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
                advance()
                if on_finish is not None:
                    on_finish(index[request.id], results[index[request.id]])

        with counting("generations", len(requests), progress) as advance:
            self.engine.run(requests, keep)
        return [results[number] for number in range(len(requests))]

    def _submit(self, prompt: list[int], params: SamplingParams, priority: int) -> list[Request]:
        """Queue the samples of one prompt; the first prefills it for all."""
        first = self.engine.submit(prompt, params, priority=priority)
        others = range(1, params.n)
        return [first, *(self.engine.submit(prompt, params, priority=priority, leader=first, sample=i) for i in others)]

    def _encode(self, prompt: Any) -> list[int]:
        given = text_or_ids(prompt, len(self.tokenizer))
        return list(self.tokenizer.encode(given)) if isinstance(given, str) else given

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
        """Token ids of a chat with the generation prompt; as `read_chat`, with its messages checked."""
        return self.read_chat(messages_of(messages, self._template)).token_ids

    def read_chat(self, messages: Messages, known: Mapping[str, Sequence[int]] | None = None) -> ChatPrompt:
        """A chat with the generation prompt as token ids, and what the template leaves out of it.

        Control tokens and tags are read in the template's own text and in earlier answers only; in every other message they
        are plain text. Earlier answers that fork are tokenised as they were generated.

        Args:
            known: token ids of earlier answers by their content, for those who have kept them.

        Raises:
            RequestError: the model has no chat template, or that refuses the messages.
        """
        if self._template is None:
            raise RequestError(f"{self.model_path!r} has no chat template: use generate() with a raw prompt")
        return self._chats(messages, known)

    @property
    def _template(self) -> str | None:
        template = getattr(self.tokenizer, "chat_template", None)
        return None if template is None else str(template)
