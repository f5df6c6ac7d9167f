"""`multiverse serve`: the model behind OpenAI's API, and the page."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .errors import InputError
from .loading import open_model
from .options import BOUNDS, MODEL, Device, Dtype, DtypeOption, Model

if TYPE_CHECKING:
    from ..serving.settings import Settings

SERVER = "Server"
ACCESS = "Access"
SCALE = "Scale"
GIB = 1 << 30


class Mode(StrEnum):
    """Which instruction the server adds to a chat."""

    parallel = "parallel"
    sequential = "sequential"
    as_is = "as-is"


class LogFormat(StrEnum):
    """How log lines are written."""

    auto = "auto"
    json = "json"
    text = "text"


class LogLevel(StrEnum):
    """Which log lines are written."""

    debug = "debug"
    info = "info"
    warning = "warning"


def serve(
    model: Model = None,
    device: Device = "auto",
    dtype: DtypeOption = Dtype.auto,
    served_model_name: Annotated[
        str | None,
        typer.Option(
            "--served-model-name",
            metavar="NAME",
            help="Name by which clients ask for the model.",
            rich_help_panel=MODEL,
            show_default="the folder's",
        ),
    ] = None,
    kv_memory: Annotated[
        float | None,
        typer.Option(
            "--kv-memory", metavar="GIB", help="Memory for keys and values.", rich_help_panel=MODEL, show_default="by device"
        ),
    ] = None,
    mode: Annotated[
        Mode,
        typer.Option("--mode", help="Instruction that ends a chat, unless the request says otherwise.", rich_help_panel=MODEL),
    ] = Mode.parallel,
    host: Annotated[str, typer.Option("--host", metavar="NAME", help="Where to listen.", rich_help_panel=SERVER)] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", "-p", metavar="N", help="Where to listen; 0 takes a free one.", rich_help_panel=SERVER)
    ] = 8000,
    root_path: Annotated[
        str, typer.Option("--root-path", metavar="PATH", help="Prefix that a reverse proxy takes off.", rich_help_panel=SERVER)
    ] = "",
    log_format: Annotated[
        LogFormat, typer.Option("--log-format", help="auto is text on a terminal, else JSON.", rich_help_panel=SERVER)
    ] = LogFormat.auto,
    log_level: Annotated[
        LogLevel, typer.Option("--log-level", help="debug shows health checks, too.", rich_help_panel=SERVER)
    ] = LogLevel.info,
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            "--api-key",
            metavar="KEY",
            envvar="MULTIVERSE_API_KEY",
            help="Ask for this key; may be given again. Others on the machine can read a command line: rather use "
            "MULTIVERSE_API_KEY, or a file.",
            rich_help_panel=ACCESS,
            show_default=False,
            show_envvar=False,
        ),
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option("--api-key-file", metavar="FILE", help="Ask for one of these keys, one a line.", rich_help_panel=ACCESS),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let everybody in who reaches the address.", rich_help_panel=ACCESS)
    ] = False,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            "--cors-origin",
            metavar="ORIGIN",
            help="Web origin whose pages may ask; may be given again. * is any.",
            rich_help_panel=ACCESS,
            show_default=False,
        ),
    ] = None,
    max_concurrent: Annotated[
        int, typer.Option("--max-concurrent", metavar="N", help="Generations at once.", rich_help_panel=BOUNDS)
    ] = 256,
    max_queue: Annotated[
        int, typer.Option("--max-queue", metavar="N", help="Generations that may wait; more get 429.", rich_help_panel=BOUNDS)
    ] = 256,
    max_prompt_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-prompt-tokens", metavar="N", help="Longest prompt.", rich_help_panel=BOUNDS, show_default="the model's"
        ),
    ] = None,
    default_max_tokens: Annotated[
        int,
        typer.Option(
            "--default-max-tokens", metavar="N", help="Most tokens of an answer, unless it says.", rich_help_panel=BOUNDS
        ),
    ] = 2048,
    max_tokens_limit: Annotated[
        int | None,
        typer.Option(
            "--max-tokens-limit",
            metavar="N",
            help="Most tokens that a request may ask for.",
            rich_help_panel=BOUNDS,
            show_default="none",
        ),
    ] = None,
    max_body_bytes: Annotated[
        int, typer.Option("--max-body-bytes", metavar="N", help="Largest body of a request.", rich_help_panel=BOUNDS)
    ] = 8 << 20,
    request_timeout: Annotated[
        float,
        typer.Option("--request-timeout", metavar="S", help="Wind a request up after so many seconds.", rich_help_panel=BOUNDS),
    ] = 600.0,
    header_timeout: Annotated[
        float,
        typer.Option("--header-timeout", metavar="S", help="Seconds to send a request's head.", rich_help_panel=BOUNDS),
    ] = 10.0,
    body_timeout: Annotated[
        float, typer.Option("--body-timeout", metavar="S", help="Seconds to send a request's body.", rich_help_panel=BOUNDS)
    ] = 30.0,
    write_timeout: Annotated[
        float,
        typer.Option(
            "--write-timeout", metavar="S", help="Seconds that a client may leave its answer unread.", rich_help_panel=BOUNDS
        ),
    ] = 60.0,
    drain_grace: Annotated[
        float,
        typer.Option("--drain-grace", metavar="S", help="Seconds to finish what runs, after SIGTERM.", rich_help_panel=BOUNDS),
    ] = 30.0,
    tensor_parallel: Annotated[
        int,
        typer.Option(
            "--tensor-parallel", metavar="K", help="GPUs (processes) that the model is spread over.", rich_help_panel=SCALE
        ),
    ] = 1,
    replicas: Annotated[
        int | None,
        typer.Option(
            "--replicas",
            metavar="N",
            help="Copies of the model, under Ray Serve; bounds on requests are then each copy's.",
            rich_help_panel=SCALE,
            show_default="one, without Ray",
        ),
    ] = None,
    max_replicas: Annotated[
        int | None,
        typer.Option(
            "--max-replicas",
            metavar="N",
            help="Start more copies under load, up to so many.",
            rich_help_panel=SCALE,
            show_default="--replicas",
        ),
    ] = None,
    target_requests: Annotated[
        float | None,
        typer.Option(
            "--target-requests",
            metavar="X",
            help="Requests at a time on each copy that call for no more and no fewer copies.",
            rich_help_panel=SCALE,
            show_default="32",
        ),
    ] = None,
    downscale_delay: Annotated[
        float | None,
        typer.Option(
            "--downscale-delay",
            metavar="S",
            help="Seconds of little load after which there are fewer copies.",
            rich_help_panel=SCALE,
            show_default="300",
        ),
    ] = None,
) -> None:
    """Serve a model: an OpenAI-compatible API below /v1, and a page at / that shows the branches as they are thought.

    It listens on this machine only, unless told otherwise; beyond it asks for an
    API key. On SIGTERM or Ctrl-C, what runs is finished first.

    [bold]Examples[/bold]
    multiverse serve
    multiverse serve --model ./my-model --port 9000
    MULTIVERSE_API_KEY=$(openssl rand -hex 24) multiverse serve --host 0.0.0.0
    curl http://127.0.0.1:8000/v1/models
    """
    from ..serving import logs
    from ..serving.settings import Settings

    settings = Settings(
        host=host,
        port=port,
        served_model_name=served_model_name,
        api_keys=_keys(api_key, api_key_file),
        mode=mode.value,
        max_body_bytes=max_body_bytes,
        max_prompt_tokens=max_prompt_tokens,
        default_max_tokens=default_max_tokens,
        max_tokens_limit=max_tokens_limit,
        max_concurrent=max_concurrent,
        max_queue=max_queue,
        request_timeout=request_timeout,
        header_timeout=header_timeout,
        body_timeout=body_timeout,
        write_timeout=write_timeout,
        drain_grace=drain_grace,
        cors_origins=tuple(cors_origin or ()),
        root_path=root_path,
    )
    as_json = log_format is LogFormat.json or (log_format is LogFormat.auto and not sys.stderr.isatty())
    logs.set_up(log_level.value, as_json=as_json)
    _check_access(settings, insecure)
    engine = {"max_requests": max_concurrent, "tensor_parallel": tensor_parallel, **_memory(kv_memory)}
    scale = _scale(replicas, max_replicas=max_replicas, target_requests=target_requests, downscale_delay=downscale_delay)
    _serve(settings, {"model": model, "device": device, "dtype": dtype.value, **engine}, scale)


def _serve(settings: Settings, model: dict[str, Any], scale: dict[str, Any] | None) -> None:
    if scale is not None:
        from ..serving.replicas import Scale, run

        run(settings, model, Scale(**scale))
        return
    from ..serving import server
    from ..serving.runner import Runner

    own = server.listen(settings)
    server.serve(Runner(open_model(**model), settings), own)


def _scale(replicas: int | None, **options: Any) -> dict[str, Any] | None:
    """What was said about copies of the model; `None` if there is to be one, in this process."""
    given = {name: value for name, value in options.items() if value is not None}
    if replicas is not None:
        return {"replicas": replicas, **given}
    if given:
        raise InputError(f"--{next(iter(given)).replace('_', '-')} is for replicas: give --replicas too")
    return None


def _memory(gib: float | None) -> dict[str, int]:
    if gib is None:
        return {}
    if gib <= 0:
        raise InputError(f"--kv-memory {gib:g} is not valid: it is a number of GiB above 0")
    return {"kv_memory": int(gib * GIB)}


def _keys(given: list[str] | None, file: Path | None) -> tuple[str, ...]:
    """Keys from the command line or the environment, and from a file, where lines that begin with # are left out."""
    keys = list(given or ())
    if file is not None:
        try:
            lines = [line.strip() for line in file.read_text().splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--api-key-file {str(file)!r} cannot be read: {error}") from None
        found = [line for line in lines if line and not line.startswith("#")]
        if not found:
            raise InputError(f"--api-key-file {str(file)!r} holds no key: write one a line")
        keys += found
    return tuple(dict.fromkeys(keys))


def _check_access(settings: Settings, insecure: bool) -> None:
    """Nobody opens a server to the world by accident."""
    from ..serving import logs

    if settings.loopback or settings.api_keys:
        return
    if not insecure:
        raise InputError(
            f"--host {settings.host} can be reached from other machines, and no API key is asked for: set MULTIVERSE_API_KEY, "
            f"or give --insecure if everybody who reaches it may use it"
        )
    logs.warn_loudly(
        f"WITHOUT A KEY: everybody who can reach {settings.host} port {settings.port} can use this model and read its metrics"
    )
