"""`multiverse serve`: the model behind OpenAI's API, and the page."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ..serving.config import ScaleConfig, ServerConfig
from .declared import Fields, expand_options
from .errors import InputError
from .loading import ModelOptions


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


@expand_options
def serve(
    model: ModelOptions,
    config: Annotated[ServerConfig, Fields(leave_out=("reasoning_budgets",))],
    scale: Annotated[dict[str, Any], Fields(of=ScaleConfig)],
    log_format: Annotated[
        LogFormat, typer.Option("--log-format", help="auto is text on a terminal, else JSON.", rich_help_panel="Server")
    ] = LogFormat.auto,
    log_level: Annotated[
        LogLevel, typer.Option("--log-level", help="debug includes health checks.", rich_help_panel="Server")
    ] = LogLevel.info,
    api_key_file: Annotated[
        Path | None,
        typer.Option("--api-key-file", metavar="FILE", help="Require one of these keys, one a line.", rich_help_panel="Access"),
    ] = None,
    upstream_key: Annotated[
        str | None,
        typer.Option(
            "--upstream-key",
            metavar="KEY",
            envvar="OPENAI_API_KEY",
            show_envvar=False,
            help="The upstream server's API key; better set as OPENAI_API_KEY, which no list of processes shows.",
            rich_help_panel="Access",
        ),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Require no key from those who reach the address.", rich_help_panel="Access"),
    ] = False,
) -> None:
    """Serve a model: an OpenAI-compatible API below /v1, and a page at / that shows the branches live.

    It listens on this machine only, unless another --host is given, which needs
    an API key. On SIGTERM or Ctrl-C, running requests are finished first.

    [bold]Examples[/bold]
    multiverse serve
    multiverse serve --model ./my-model --port 9000
    multiverse serve --upstream http://10.0.0.7:8000/v1 --tokenizer ./my-model
    MULTIVERSE_API_KEY=$(openssl rand -hex 24) multiverse serve --host 0.0.0.0
    curl http://127.0.0.1:8000/v1/models
    """
    from ..serving import logs

    config = replace(config, api_keys=_keys(config.api_keys, api_key_file))
    as_json = log_format is LogFormat.json or (log_format is LogFormat.auto and not sys.stderr.isatty())
    logs.set_up(log_level.value, as_json=as_json)
    _check_access(config, insecure)
    if scale and "replicas" not in scale:
        raise InputError(f"--{next(iter(scale)).replace('_', '-')} is for replicas: give --replicas too")
    _serve(config, model, ScaleConfig(**scale) if scale else None, upstream_key)


def _serve(config: ServerConfig, model: ModelOptions, scale: ScaleConfig | None, key: str | None) -> None:
    if scale is not None:
        if model.upstream is not None:
            raise InputError("--replicas is for a model that runs here: put replicas of the model behind --upstream")
        from ..serving.replicas import run

        run(config, model.arguments(), scale, announce)
        return
    from ..serving import server
    from ..serving.service import Service

    own = server.listen(config)
    if model.upstream is None:
        server.serve(Service(model.load(), config), own, announce)
        return
    from ..serving.upstream import UpstreamService

    server.serve(UpstreamService(model.connect(key, config.max_concurrent), config), own, announce)


def announce(url: str) -> None:
    """Say where the page is, as an address that a browser on this machine can open. Log lines go to stderr, this does not."""
    for everywhere, here in (("//0.0.0.0:", "//127.0.0.1:"), ("//[::]:", "//[::1]:")):
        url = url.replace(everywhere, here)
    with suppress(OSError):  # a server needs nobody who reads this
        typer.echo(f"the page: {url}/")
        sys.stdout.flush()


def _keys(given: tuple[str, ...], file: Path | None) -> tuple[str, ...]:
    """The API keys given, and those of a file, where lines that begin with # are left out."""
    keys = list(given)
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


def _check_access(config: ServerConfig, insecure: bool) -> None:
    """Raise `InputError` if the server can be reached from other machines without a key, unless that is meant."""
    from ..serving import logs

    if config.loopback or config.api_keys:
        return
    if not insecure:
        raise InputError(
            f"--host {config.host} can be reached from other machines, and no API key is asked for: set MULTIVERSE_API_KEY, "
            f"or give --insecure if everybody who reaches it may use it"
        )
    logs.warn_loudly(
        f"WITHOUT A KEY: everybody who can reach {config.host} port {config.port} can use this model and read its metrics"
    )
