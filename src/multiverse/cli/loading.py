"""Which model a command runs, and how it is loaded without output from the libraries below."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..common import CommonOptions, DialectChoice, JoinChoice, MalformedChoice, PresetChoice, QuantizeChoice
from ..errors import ModelError, MultiverseError, first_line
from ..models import pull, resolve
from ..options import Options, like, option
from .errors import InputError, check_url

if TYPE_CHECKING:
    from ..families import Family
    from ..llm import LLM
    from ..prompting import Prompting
    from ..stock.llm import StockLLM

MINI = "multiverse-mini"
ONE_PROCESS = (
    *("model", "upstream", "tokenizer", "dialect", "malformed", "layout", "join", "preset", "instruction_file"),
    *("device", "dtype", "quantize", "deterministic"),
)
"""Model options of commands that run one process, without those for many requests."""
BY_PRESET = {
    "temperature": "0.6, or the preset's",
    "top_p": "0.95, or the preset's",
    "max_tokens": "2048, or the preset's",
    "max_branch_tokens": "8192, or the preset's",
    "path_repetition_penalty": "that of the trunk, or the preset's",
}
"""Defaults of sampling parameters that the preset of a model decides, as `--help` shows them."""
NOT_OFFERED = (
    *("logit_bias", "n", "logprobs", "top_logprobs", "logprobs_mode", "supports", "prompt_logprobs"),
    *("response_format", "share_every"),
)
"""Sampling parameters that have no option of their own, as there is nobody to see what they give."""
_MODEL, _GIB = "Model", 1 << 30


@dataclass(frozen=True)
class ModelOptions(Options):
    """The model that a command loads, and what it runs on."""

    model: str | None = like(CommonOptions, "model", show_default=MINI)
    upstream: str | None = option(
        None,
        "Have a server of another engine (vLLM, SGLang, llama.cpp) run the model, by its /v1/completions: forks and joins by "
        "text happen here. --model is then its name there.",
        metavar="URL",
        group=_MODEL,
        show_default="run the model here",
    )
    tokenizer: str | None = option(
        None,
        "With --upstream, the model's tokenizer and dialect: a name, folder or hub id.",
        metavar="NAME|PATH",
        group=_MODEL,
        show_default="the model's, if its name there is a folder here",
    )
    dialect: DialectChoice | None = like(CommonOptions, "dialect", None, group=_MODEL, show_default="as the model says")
    malformed: MalformedChoice | None = like(
        CommonOptions, "malformed", None, group=_MODEL, show_default="as the model's dialect says"
    )
    layout: Literal["engine", "released"] | None = like(CommonOptions, "layout")
    device: str = option(
        "auto", "Where to run it: auto (CUDA if there is a GPU), cpu, cuda, cuda:1.", metavar="NAME", group=_MODEL
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = option(
        "auto", "Type of the weights; auto is the one they were saved in.", group=_MODEL
    )
    quantize: QuantizeChoice = option(
        "auto",
        "Weights of linear layers in 8 or 4 bits, on a CPU: less memory, and faster; auto takes the bits of a GGUF file, none "
        "unpacks them.",
        group=_MODEL,
    )
    kv_memory: float | None = option(
        None, "GiB of memory for keys and values.", gt=0, metavar="GIB", group=_MODEL, show_default="by device"
    )
    packed_linears: bool = option(True, "Fuse or repack linear layers for speed; the results are the same.", group=_MODEL)
    join: JoinChoice | None = like(CommonOptions, "join", group=_MODEL)
    tensor_parallel: int = option(1, "GPUs (processes) that the model is split over.", ge=1, metavar="K", group=_MODEL)
    deterministic: bool = option(
        False,
        "Same tokens and log-probabilities, bit for bit, whatever else is in the batch or the cache; slower.",
        group=_MODEL,
    )
    preset: PresetChoice = like(CommonOptions, "preset")
    instruction_file: str | None = like(CommonOptions, "instruction_file")

    def check_remote(self) -> None:
        """Raise `InputError` if something is set that a server has to be started with."""
        given = {
            "--deterministic": self.deterministic,
            f"--layout {self.layout}": self.layout is not None,
            # Where a server of another engine runs the model, its heads are written here, in this dialect.
            f"--dialect {self.dialect}": self.dialect is not None and self.upstream is None,
            f"--malformed {self.malformed}": self.malformed is not None and self.upstream is None,
            f"--join {self.join}": self.join is not None,
            f"--quantize {self.quantize}": self.quantize != ModelOptions().quantize,
            f"--preset {self.preset}": self.preset != ModelOptions().preset,
            f"--instruction-file {self.instruction_file}": self.instruction_file is not None,
        }
        for flag in (flag for flag, is_set in given.items() if is_set):
            raise InputError(f"{flag} is for a model in this process: start the server with it, as multiverse serve {flag}")

    @property
    def name(self) -> str:
        """What to call the model in output."""
        if self.upstream is not None:
            return f"{self.upstream} {self.model}" if self.model is not None else self.upstream
        return self.model if self.model is not None else MINI

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of `LLM`."""
        given: dict[str, Any] = {
            "model": self.model,
            "layout": self.layout,
            "device": self.device,
            "dtype": self.dtype,
            "quantize": self.quantize,
            "packed_linears": self.packed_linears,
            "tensor_parallel": self.tensor_parallel,
            "deterministic": self.deterministic,
            "preset": self.preset,
            # Absolute, since replicas have a working directory of their own.
            "instruction_file": str(Path(self.instruction_file).expanduser().absolute()) if self.instruction_file else None,
        }
        if self.join is not None:
            given["join"] = self.join
        if self.kv_memory is not None:
            given["kv_memory"] = int(self.kv_memory * _GIB)
        return {**given, **self._written()}

    def _written(self) -> dict[str, Any]:
        """The dialect as a keyword argument, if it is not left to the model."""
        if self.dialect is None:
            if self.malformed is not None:
                raise InputError(f"--malformed {self.malformed} is for a dialect that is named: give --dialect, too")
            return {}
        from ..structure import DIALECTS

        dialect = DIALECTS[self.dialect]
        return {"dialect": dialect if self.malformed is None else replace(dialect, malformed=self.malformed)}

    def asked(self) -> tuple[Family | None, Prompting]:
        """The family whose preset the model has, and its instructions, without its weights.

        Raises:
            ModelError: it cannot be found.
        """
        from ..families import bind, choose, read_instruction
        from ..models.weights import read_config

        dialect = self._written().get("dialect")
        source = pull(self.model if self.model is not None else _mini())
        with quietly(self.model):
            config, tokenizer = read_config(source, given=self.name)
            family = choose(self.preset, self.name, tokenizer, config, dialect).family
            instruction = read_instruction(source, self.instruction_file)
            return family, bind(family, tokenizer, config, dialect, instruction).prompting

    def load(self, **engine: Any) -> LLM:
        """Load the model, or find it on its server; a note on a terminal's stderr says so meanwhile.

        Args:
            engine: further keyword arguments of `LLM`.

        Raises:
            ModelError: it cannot be found or loaded, its layers cannot run with forks, or the device does not exist.
            UpstreamError: its server does not answer, or has no such model.
        """
        if self.upstream is not None:
            return self.connect()
        if self.tokenizer is not None:
            raise InputError(f"--tokenizer {self.tokenizer!r} is for --upstream: a model that runs here has its own")
        if self.model is not None:
            pull(self.model)  # with a progress bar, if there is something to fetch
        with quietly(self.model):
            from ..llm import LLM

            return LLM(**self.arguments(), **engine)

    def connect(self, api_key: str | None = None, concurrency: int | None = None) -> StockLLM:
        """The model on the server of `upstream`.

        Args:
            api_key: of the server; `None` takes ``OPENAI_API_KEY`` of the environment.
            concurrency: most requests there at once; `None` takes `StockLLM`'s default.

        Raises:
            InputError: an option is not valid, or has no effect there.
            UpstreamError: the server does not answer, or has no such model.
            ModelError, DialectError: the tokenizer cannot be read, or does not fit.
        """
        assert self.upstream is not None
        check_url(self.upstream, "--upstream")
        self._refuse_local()
        options: dict[str, Any] = self._written() if concurrency is None else {**self._written(), "concurrency": concurrency}
        with quietly(self.name):
            from ..stock.llm import StockLLM
            from ..stock.server import ServerOptions, look_up

            key = api_key if api_key is not None else os.environ.get("OPENAI_API_KEY") or None
            tokenizer = self.tokenizer
            if tokenizer is None:
                there = look_up(ServerOptions(self.upstream, self.model, key)).model
                tokenizer = there if Path(there).is_dir() else None
            if tokenizer is None and self.dialect is None:
                raise InputError(
                    f"--upstream {self.upstream} needs --tokenizer, a folder or hub id of the model, which has its tags; "
                    "or, to send text, --dialect"
                )
            options |= {"preset": self.preset, "instruction_file": self.instruction_file}
            stock = StockLLM(self.upstream, self.model, tokenizer=tokenizer, api_key=key, **options)
            atexit.register(stock.close)  # whatever ends this process, nothing is left running there
            return stock

    def _refuse_local(self) -> None:
        """Raise `InputError` for an option that concerns a model in this process."""
        if self.deterministic:
            self.check_remote()
        plain = ModelOptions()
        for name in ("layout", "device", "dtype", "quantize", "kv_memory", "packed_linears", "join", "tensor_parallel"):
            if getattr(self, name) != getattr(plain, name):
                option_name = f"--{'no-' if getattr(self, name) is False else ''}{name.replace('_', '-')}"
                raise InputError(f"{option_name} is for a model in this process: with --upstream its server decides that")


def _mini() -> str:
    return str(files("multiverse") / "models" / "mini")


def open_tokenizer(model: str | None) -> Any:
    """A model's tokenizer alone; `None` is that of multiverse-mini.

    Raises:
        ModelError: it cannot be found or loaded.
    """
    model = _mini() if model is None else model
    folder = Path(model).expanduser()
    if (
        not folder.is_dir()
        and folder.suffix != ".gguf"
        and (folder.is_absolute() or model.startswith((".", "~")) or folder.exists())
    ):
        raise ModelError(f"the model folder {model!r} does not exist: give a folder with a tokenizer, or a hub id")
    source = resolve(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import AutoTokenizer

        silence_libraries()
        with _as_model_errors(f"the tokenizer of {model!r} could not be loaded: give a folder that has one, or a hub id"):
            return AutoTokenizer.from_pretrained(source)


@contextmanager
def quietly(name: str | None) -> Iterator[None]:
    """Context in which a model or a tokenizer is loaded: a spinner on a terminal's stderr, and no output from libraries.

    Raises:
        ModelError: for whatever the libraries raise over a model's files.
    """
    from rich.console import Console

    name = name if name is not None else MINI
    # Only on a terminal: a log has no use for a spinner.
    with Console(stderr=True, quiet=not sys.stderr.isatty()).status(f"loading {name}"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        silence_libraries()
        with _as_model_errors(f"the model {name!r} could not be loaded"):
            yield


@contextmanager
def _as_model_errors(problem: str) -> Iterator[None]:
    """Raise whatever the libraries raise over a model's files, from a wrong field to a truncated file, as `ModelError`."""
    try:
        yield
    except MultiverseError:
        raise
    except Exception as error:
        raise ModelError(f"{problem} ({first_line(error)})") from error


def silence_libraries() -> None:
    from transformers.utils import logging as transformers_logging

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
