"""The web application: routes, and errors in OpenAI's shape for whatever goes wrong.

uvicorn.run(create_app(Runner(LLM(), Settings())))
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ExtraError

try:
    from fastapi import FastAPI, Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import FileResponse, JSONResponse, Response
    from fastapi.staticfiles import StaticFiles
    from starlette.exceptions import HTTPException
except ImportError as error:
    raise ExtraError("fastapi", "serve") from error

from . import chat, completions, info, logs, schemas, wire
from .errors import ApiError, body, invalid, server_error
from .metrics import CONTENT_TYPE
from .parse import dialect_of, replay
from .translate import check_model

if TYPE_CHECKING:
    from .runner import Runner

STATIC = Path(__file__).parent / "static"

ABOUT = """
An OpenAI-compatible server for models that fork and join.

The thinking of an answer is in `reasoning` (and `reasoning_content`), the answer itself in `content`. With
`"multiverse": {"branches": true}` a stream tells every branch live: each chunk carries one event in `multiverse`, beside the
ordinary text that it makes ready.

Every parameter works or is refused by name with a 400; none is passed over.
"""

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.ErrorBody, "description": about}
    for status, about in (
        (400, "The request cannot be honoured as it stands; `param` says why."),
        (401, "No API key, or a wrong one."),
        (404, "There is no such model."),
        (405, "The method is not known here."),
        (408, "The body took too long to arrive."),
        (413, "The body is too large."),
        (415, "The body is not JSON."),
        (422, "The model broke the grammar of its tags, which it can only with `guard: false`."),
        (429, "The server is full; `Retry-After` says when to try again."),
        (500, "The server failed."),
        (503, "The server is shutting down, or the request waited too long."),
    )
}


def create_app(runner: Runner) -> FastAPI:
    """The application over a runner, which it starts and closes."""
    app = FastAPI(
        title="multiverse",
        version="1",
        description=ABOUT,
        lifespan=_lifespan(runner),
        docs_url=None,
        redoc_url=None,
        responses={status: _ERRORS[status] for status in (401, 500)},
    )
    _add_errors(app)
    _add_answers(app, runner)
    _add_models(app, runner)
    _add_tools(app, runner)
    _add_operation(app, runner)
    _add_page(app)
    _describe(app)
    from .middleware import install

    install(app, runner)
    return app


def _lifespan(runner: Runner) -> Any:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with runner:
            yield

    return lifespan


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: _ERRORS[status] for status in statuses}


def _or_stream(answer: type[schemas.Told], chunk: type[schemas.Told]) -> dict[int | str, dict[str, Any]]:
    """A whole answer, or a stream of chunks."""
    about = (
        f"Server-sent events: each `data:` line is a {chunk.__name__} (see the schemas) or an object with an `error`; "
        "the last one is `[DONE]`."
    )
    stream = {"text/event-stream": {"schema": {"type": "string", "description": about}}}
    return {200: {"model": answer, "content": stream, "description": "The answer, whole or streamed."}}


def _add_answers(app: FastAPI, runner: Runner) -> None:
    refusals = _errors(400, 404, 408, 413, 415, 422, 429, 503)

    @app.post(
        "/v1/chat/completions",
        response_model=None,
        responses={**_or_stream(schemas.ChatCompletion, schemas.ChatChunk), **refusals},
        tags=["answers"],
    )
    async def chat_completions(request: wire.ChatRequest) -> Response:
        """Answer a chat."""
        return await chat.complete(request, runner)

    @app.post(
        "/v1/completions",
        response_model=None,
        responses={**_or_stream(schemas.TextCompletion, schemas.TextChunk), **refusals},
        tags=["answers"],
    )
    async def text_completions(request: wire.CompletionRequest) -> Response:
        """Continue raw text."""
        return await completions.complete(request, runner)


def _add_models(app: FastAPI, runner: Runner) -> None:
    @app.get("/v1/models", response_model=schemas.ModelList, tags=["model"])
    async def models() -> JSONResponse:
        """The models: there is one."""
        return JSONResponse({"object": "list", "data": [info.model(runner)]})

    @app.get("/v1/models/{model:path}", response_model=schemas.Model, responses=_errors(404), tags=["model"])
    async def model(model: str) -> JSONResponse:
        """One model."""
        check_model(model, runner.model_name)
        return JSONResponse(info.model(runner))

    @app.get("/get_model_info", response_model=schemas.ModelInfo, tags=["model"])
    async def model_info() -> JSONResponse:
        """The model, and the tags that it writes."""
        return JSONResponse(info.model_info(runner))

    @app.get("/get_server_info", response_model=dict[str, Any], tags=["operation"])
    async def server_info() -> JSONResponse:
        """The server's options, and what it is doing."""
        return JSONResponse(runner.stats())


def _add_tools(app: FastAPI, runner: Runner) -> None:
    refusals = _errors(400, 404, 408, 413, 415)

    @app.post("/tokenize", response_model=schemas.Tokenized, responses=refusals, tags=["text"])
    async def tokenize(request: wire.TokenizeRequest) -> JSONResponse:
        """A text or a chat as token ids."""
        return JSONResponse(await info.tokenize(request, runner))

    @app.post("/detokenize", response_model=schemas.Detokenized, responses=refusals, tags=["text"])
    async def detokenize(request: wire.DetokenizeRequest) -> JSONResponse:
        """Token ids as text, tags included."""
        return JSONResponse(await info.detokenize(request, runner))

    @app.post("/parse", response_model=schemas.Parsed, responses=refusals, tags=["text"])
    async def parse(request: wire.ParseRequest) -> JSONResponse:
        """A structured document, as the events in which it would have been written."""
        tokens = runner.llm.engine.tokens
        dialect = dialect_of(request.dialect, tokens.dialect if tokens is not None else None)
        return JSONResponse(await asyncio.to_thread(replay, request.text, dialect))


def _add_operation(app: FastAPI, runner: Runner) -> None:
    @app.get("/health", response_model=schemas.Status, responses=_errors(503), tags=["operation"])
    async def health() -> JSONResponse:
        """Whether the server is alive."""
        if not runner.alive:
            raise server_error("the engine has come to grief: the server has to be started again; ask another one", 503, "dead")
        return JSONResponse({"status": "ok"})

    @app.get("/ready", response_model=schemas.Status, responses=_errors(503), tags=["operation"])
    async def ready() -> JSONResponse:
        """Whether it takes requests: not while it loads or drains."""
        if not runner.ready:
            doing = "shutting down" if runner.draining else "starting"
            raise server_error(f"the server is {doing}: ask another one, or try again soon", 503, "not_ready")
        return JSONResponse({"status": "ok"})

    @app.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {CONTENT_TYPE: {"schema": {"type": "string"}}}, "description": "Prometheus metrics."}},
        tags=["operation"],
    )
    async def metrics() -> Response:
        """Prometheus metrics."""
        return Response(runner.metrics.render(), headers={"content-type": CONTENT_TYPE})


def _add_page(app: FastAPI) -> None:
    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    app.mount("/static", StaticFiles(directory=STATIC, check_dir=False), name="static")


def _describe(app: FastAPI) -> None:
    """Put what no route names into the description, the chunks of streams and the key; take out the framework's own errors."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            described = plain()
            components = described["components"]
            for operation in (own for path in described["paths"].values() for own in path.values()):
                if "HTTPValidationError" in str(operation["responses"].get("422")):  # what does not fit is a 400 here
                    del operation["responses"]["422"]
            for name in ("HTTPValidationError", "ValidationError"):
                components["schemas"].pop(name, None)
            for chunk in (schemas.ChatChunk, schemas.TextChunk):
                own = chunk.model_json_schema(ref_template="#/components/schemas/{model}")
                components["schemas"].update(own.pop("$defs", {}))
                components["schemas"][chunk.__name__] = own
            components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            described["security"] = [{"key": []}, {}]
            app.openapi_schema = described
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _add_errors(app: FastAPI) -> None:
    async def tell(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ApiError)
        logs.note(error=error.message)
        return JSONResponse(body(error), error.status, error.headers)

    async def tell_validation(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return await tell(request, _validation(error.errors(), error.body))

    async def tell_http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return await tell(request, _http(request, error))

    async def tell_unexpected(request: Request, error: Exception) -> JSONResponse:
        logs.log("unexpected failure", level=logging.ERROR, error=repr(error))
        return await tell(request, server_error("something went wrong in the server: its log says more", code="internal_error"))

    app.add_exception_handler(ApiError, tell)
    app.add_exception_handler(RequestValidationError, tell_validation)
    app.add_exception_handler(HTTPException, tell_http)
    app.add_exception_handler(Exception, tell_unexpected)


def _http(request: Request, error: HTTPException) -> ApiError:
    """What the framework itself refuses."""
    place, headers = f"{request.method} {request.url.path}", dict(error.headers or {})
    match error.status_code:
        case 404:
            return ApiError(404, f"there is nothing at {place}: see /openapi.json", "not_found_error", code="not_found")
        case 405:
            allowed = headers.get("Allow", headers.get("allow", "another method"))
            return ApiError(405, f"{place} is not possible: use {allowed}", code="method_not_allowed", headers=headers)
        case 400:
            return invalid("the body is not JSON that can be read: check its syntax and encoding (UTF-8)", code="invalid_json")
        case status:
            kind = "server_error" if status >= 500 else "invalid_request_error"
            return ApiError(status, str(error.detail), kind, headers=headers)


def _validation(errors: Sequence[Any], given: Any) -> ApiError:
    """The first thing that does not fit the schema, by its name in the request."""
    first = errors[0]
    if first["type"] == "json_invalid":
        reason = first.get("ctx", {}).get("error", "")
        return invalid(f"the body is not valid JSON ({reason}, at offset {first['loc'][-1]})", code="invalid_json")
    if first["type"] in ("missing", "model_attributes_type", "dict_type") and first["loc"] == ("body",):
        return invalid(
            "the body is not a JSON object: send one, with the header  Content-Type: application/json", code="invalid_json"
        )
    # Of several alternatives that do not fit, what matters is the one that fits furthest.
    top = _param(first, given)
    first = max((error for error in errors if _param(error, given).startswith(top)), key=lambda error: len(_path(error, given)))
    param = _param(first, given)
    alike = [error for error in errors if _param(error, given) == param]
    told = [error for error in alike if not error["type"].endswith("_type")] or alike
    if first["type"] == "extra_forbidden":
        return invalid(f"{param} is not a parameter that this server knows: leave it out", param, "unknown_parameter")
    if first["type"] == "missing":
        return invalid(f"{param} is missing", param, "missing_parameter")
    wanted = " or ".join(dict.fromkeys(_say(error) for error in told))
    hint = next((wire.NEUTRAL[name] for name in param.split(".") if name in wire.NEUTRAL), wanted)
    value = first.get("input")
    if first["type"] == "union_tag_invalid":
        value = first["ctx"]["tag"]
        hint = f"use one of {first['ctx']['expected_tags']}"
    return invalid(f"{param}={_short(value)} is not possible: {hint}", param)


def _say(error: Any) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def _param(error: Any, given: Any) -> str:
    return ".".join(_path(error, given))


def _path(error: Any, given: Any) -> list[str]:
    """The path to a value in the request, without what the schema calls its alternatives."""
    path: list[str] = []
    steps = list(error["loc"][1:])
    for step in steps:
        inside = isinstance(given, dict) and step in given
        if isinstance(given, list):
            inside = isinstance(step, int) and step < len(given)
        if inside:
            given = given[step]
            path.append(str(step))
    if error["type"] == "missing":
        path.append(str(steps[-1]))
    elif error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        path.append("role")
    return path


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
