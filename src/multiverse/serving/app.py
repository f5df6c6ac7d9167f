"""The web application: routes, and errors in OpenAI's shape.

uvicorn.run(create_app(Service(LLM(), ServerConfig())))
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import EngineError, ExtraError

try:
    from fastapi import FastAPI, Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import FileResponse, JSONResponse, Response
    from fastapi.staticfiles import StaticFiles
    from starlette.exceptions import HTTPException
except ImportError as error:
    raise ExtraError("fastapi", "serve") from error

from . import chat, completions, info, info_schema, items, logs, requests, respond, response_schema, responses
from .errors import ApiError, as_api_error, body, invalid, server_error
from .metrics import CONTENT_TYPE
from .middleware import middleware
from .neutral import NEUTRAL
from .params import check_model
from .parse import dialect_of, replay

if TYPE_CHECKING:
    from .service import Service

STATIC = Path(__file__).parent / "static"
_REFERENCE = "fastapi_offline"
"""The package that has Swagger UI (Apache 2.0) and Redoc (MIT) as files."""

ABOUT = """
An OpenAI-compatible server for models that fork and join.

The thinking of an answer is in `reasoning` (and `reasoning_content`), the answer itself in `content`. With
`"multiverse": {"branches": true}` a stream shows every branch live: each chunk carries one event in `multiverse`, beside the
ordinary text that it makes ready.

Every parameter works or is refused by name with a 400; none is ignored.
"""

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": responses.ErrorBody, "description": about}
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


def create_app(service: Service) -> FastAPI:
    """The application over a service, which it opens and closes."""
    app = FastAPI(
        title="multiverse",
        version="1",
        description=ABOUT,
        lifespan=_lifespan(service),
        docs_url=None,
        redoc_url=None,
        responses={status: _ERRORS[status] for status in (401, 500)},
        middleware=middleware(service.admission),
    )
    _add_errors(app)
    _add_answers(app, service)
    _add_models(app, service)
    _add_tools(app, service)
    _add_operation(app, service)
    _add_page(app)
    _describe(app)
    return app


def _lifespan(service: Service) -> Any:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service:
            yield

    return lifespan


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: _ERRORS[status] for status in statuses}


def _or_stream(answer: type[responses.ResponseModel], chunk: type[responses.ResponseModel]) -> dict[int | str, dict[str, Any]]:
    """A whole answer, or a stream of chunks."""
    about = (
        f"Server-sent events: each `data:` line is a {chunk.__name__} (see the schemas) or an object with an `error`; "
        "the last one is `[DONE]`."
    )
    stream = {"text/event-stream": {"schema": {"type": "string", "description": about}}}
    return {200: {"model": answer, "content": stream, "description": "The answer, whole or streamed."}}


def _add_answers(app: FastAPI, service: Service) -> None:
    refusals = _errors(400, 404, 408, 413, 415, 422, 429, 503)

    @app.post(
        "/v1/chat/completions",
        response_model=None,
        responses={**_or_stream(responses.ChatCompletion, responses.ChatChunk), **refusals},
        tags=["answers"],
    )
    async def chat_completions(request: requests.ChatRequest) -> Response:
        """Answer a chat."""
        return await chat.complete(request, service)

    @app.post(
        "/v1/responses",
        response_model=None,
        responses={**_or_stream(response_schema.ResponseObject, response_schema.ResponseEvent), **refusals},
        tags=["answers"],
    )
    async def create_response(request: items.ResponseRequest) -> Response:
        """Answer items with items. Nothing is stored: earlier items are sent again."""
        return await respond.respond(request, service)

    @app.post(
        "/v1/completions",
        response_model=None,
        responses={**_or_stream(responses.TextCompletion, responses.TextChunk), **refusals},
        tags=["answers"],
    )
    async def text_completions(request: requests.CompletionRequest) -> Response:
        """Continue raw text."""
        return await completions.complete(request, service)


def _add_models(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models", response_model=info_schema.ModelList, tags=["model"])
    async def models() -> JSONResponse:
        """The models that are served: one."""
        return JSONResponse({"object": "list", "data": [info.model(service)]})

    @app.get("/v1/models/{model:path}", response_model=info_schema.Model, responses=_errors(404), tags=["model"])
    async def model(model: str) -> JSONResponse:
        """One model."""
        check_model(model, service.model_name)
        return JSONResponse(info.model(service))

    @app.get("/get_model_info", response_model=info_schema.ModelInfo, tags=["model"])
    async def model_info() -> JSONResponse:
        """The model, and the tags that it writes."""
        return JSONResponse(info.model_info(service))

    @app.get("/get_server_info", response_model=dict[str, Any], tags=["operation"])
    async def server_info() -> JSONResponse:
        """The server's options and load."""
        return JSONResponse(service.stats())


def _add_tools(app: FastAPI, service: Service) -> None:
    refusals = _errors(400, 404, 408, 413, 415)

    @app.post("/tokenize", response_model=info_schema.Tokenized, responses=refusals, tags=["text"])
    async def tokenize(request: requests.TokenizeRequest) -> JSONResponse:
        """A text or a chat as token ids."""
        return JSONResponse(await info.tokenize(request, service))

    @app.get("/tokenizer_info", response_model=info_schema.TokenizerInfo, tags=["text"])
    async def tokenizer_info() -> JSONResponse:
        """The tokenizer's special tokens and chat template."""
        return JSONResponse(info.tokenizer_info(service))

    @app.post("/detokenize", response_model=info_schema.Detokenized, responses=refusals, tags=["text"])
    async def detokenize(request: requests.DetokenizeRequest) -> JSONResponse:
        """Token ids as text, tags included."""
        return JSONResponse(await info.detokenize(request, service))

    @app.post(
        "/familiarity",
        response_model=info_schema.Familiarity,
        responses=_errors(400, 404, 408, 413, 415, 429, 503),
        tags=["text"],
    )
    async def familiarity(request: requests.FamiliarityRequest) -> JSONResponse:
        """Whether a question is unlike those that the model was trained on."""
        return JSONResponse(await info.familiarity(request, service))

    @app.post("/parse", response_model=info_schema.Parsed, responses=refusals, tags=["text"])
    async def parse(request: requests.ParseRequest) -> JSONResponse:
        """A structured document as the events in which it would have been generated."""
        tokens = service.llm.tokens
        dialect = dialect_of(request.dialect, tokens.dialect if tokens is not None else None)
        return JSONResponse(await asyncio.to_thread(replay, request.text, dialect))


def _add_operation(app: FastAPI, service: Service) -> None:
    @app.get("/health", response_model=info_schema.Status, responses=_errors(503), tags=["operation"])
    async def health() -> JSONResponse:
        """Whether the server is alive."""
        if not service.alive:
            raise server_error("the engine has failed and the server must be restarted: use another one", 503, "dead")
        return JSONResponse({"status": "ok"})

    @app.get("/ready", response_model=info_schema.Status, responses=_errors(503), tags=["operation"])
    async def ready() -> JSONResponse:
        """Whether it takes requests: not while it loads or drains."""
        await service.check_ready()
        return JSONResponse({"status": "ok"})

    @app.get("/version", response_model=info_schema.Version, tags=["operation"])
    async def version() -> JSONResponse:
        """The version of this package."""
        return JSONResponse({"version": __version__})

    @app.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {CONTENT_TYPE: {"schema": {"type": "string"}}}, "description": "Prometheus metrics."}},
        tags=["operation"],
    )
    async def metrics() -> Response:
        """Prometheus metrics."""
        return Response(service.metrics.render(), headers={"content-type": CONTENT_TYPE})


async def _reference(file: Path) -> FileResponse:
    """A page that shows the description of the API; its scripts come from a package, not from the network."""
    if find_spec(_REFERENCE) is None:
        missing = ExtraError(_REFERENCE.replace("_", "-"), "serve")
        raise ApiError(501, f"{missing}, or read /openapi.json", "server_error", code="not_installed")
    return FileResponse(file)


def _add_page(app: FastAPI) -> None:
    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    for path, file in (("/docs", "docs.html"), ("/redoc", "redoc.html")):
        app.add_api_route(path, partial(_reference, STATIC / file), methods=["GET", "HEAD"], include_in_schema=False)
    if find_spec(_REFERENCE) is not None:
        app.mount("/static/reference", StaticFiles(packages=[(_REFERENCE, "static")]), name="reference")
    app.mount("/static", StaticFiles(directory=STATIC, check_dir=False), name="static")


def _describe(app: FastAPI) -> None:
    """Add to the OpenAPI description the chunks of streams and the API key; take out the framework's own errors."""
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
            for chunk in (responses.ChatChunk, responses.TextChunk, response_schema.ResponseEvent):
                own = chunk.model_json_schema(ref_template="#/components/schemas/{model}")
                components["schemas"].update(own.pop("$defs", {}))
                components["schemas"][chunk.__name__] = own
            components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            described["security"] = [{"key": []}, {}]
            app.openapi_schema = described
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _add_errors(app: FastAPI) -> None:
    async def respond(_: Request, error: Exception) -> JSONResponse:
        failure = as_api_error(error)
        logs.note(error=failure.message)
        return JSONResponse(body(failure), failure.status, failure.headers)

    async def respond_invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return await respond(request, _validation(error.errors(), error.body))

    async def respond_http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return await respond(request, _http(request, error))

    app.add_exception_handler(ApiError, respond)
    app.add_exception_handler(EngineError, respond)
    app.add_exception_handler(RequestValidationError, respond_invalid)
    app.add_exception_handler(HTTPException, respond_http)


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
    same = [error for error in errors if _param(error, given) == param]
    said = [error for error in same if not error["type"].endswith("_type")] or same
    if first["type"] == "extra_forbidden":
        return invalid(f"{param} is not a parameter that this server knows: leave it out", param, "unknown_parameter")
    if first["type"] == "missing":
        return invalid(f"{param} is missing", param, "missing_parameter")
    wanted = " or ".join(dict.fromkeys(_say(error) for error in said))
    hint = next((NEUTRAL[name] for name in param.split(".") if name in NEUTRAL), wanted)
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
        # The field that tells alternatives apart; a function that does so goes by the type.
        path.append({"'role'": "role"}.get(error["ctx"]["discriminator"], "type"))
    return path


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
