"""Answers about the model, texts and the server in the OpenAPI description, as `responses.py` has the completions."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from .responses import WARNINGS, ResponseModel, WireEvent


class About(ResponseModel):
    """What a model says of itself."""

    text: str
    example: str | None = Field(description="A question that it answers well.")
    otherwise: str | None = Field(description="What to use for other questions.")
    least_logprob: float | None = Field(
        description="Mean log-probability of a question's tokens below which it is unlike those of the training."
    )


class Familiarity(ResponseModel):
    """Answer of `POST /familiarity`."""

    logprob: float | None = Field(description="Mean log-probability of the question's tokens; null if no threshold is known.")
    least_logprob: float | None
    unlike: bool
    notice: str | None = Field(description="What to tell the person who asks; null if there is nothing to say.")


class Model(ResponseModel):
    """The model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    max_model_len: int
    dialect: str | None = Field(description="Name of the tag set that it writes; null for a plain model.")
    about: About | None = Field(description="What it says of itself to people; null if its folder has no about.json.")
    instructed: bool = Field(description="Whether questions end with the instruction of a mode, as they did in its training.")
    preset: str | None = Field(description="The family whose preset it is asked, sampled and read by; null if it is of none.")
    instructions: dict[str, str] = Field(description="The instruction of each mode.")
    instruction_separator: str = Field(description="What stands between a question and its instruction.")


class ModelList(ResponseModel):
    """Answer of `GET /v1/models`."""

    object: Literal["list"]
    data: list[Model]


class Version(ResponseModel):
    """Answer of `GET /version`."""

    version: str


class Tokenized(ResponseModel):
    """Answer of `POST /tokenize`."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None
    warnings: list[str] | None = Field(None, description=WARNINGS)


class TokenizerInfo(ResponseModel):
    """Answer of `GET /tokenizer_info`."""

    tokenizer_class: str
    vocab_size: int
    model_max_length: int
    chat_template: str | dict[str, str] | None
    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    unk_token: str | None


class Detokenized(ResponseModel):
    """Answer of `POST /detokenize`."""

    prompt: str


class Status(ResponseModel):
    """Answer of `GET /health` and `GET /ready`."""

    status: Literal["ok"]


class Parsed(ResponseModel):
    """Answer of `POST /parse`."""

    events: list[WireEvent]
    tree: dict[str, Any]


class ModelInfo(ResponseModel):
    """Answer of `GET /get_model_info`."""

    model_path: str
    served_model_name: str
    is_generation: Literal[True]
    max_model_len: int
    vocab_size: int
    deterministic: bool = Field(description="Whether the same request gives the same bits whatever it is computed beside.")
    quantized: str | None = Field(
        description="How the weights of linear layers are held: int8, int4, or gguf (as in the file); null as plain numbers."
    )
    has_chat_template: bool
    dialect: dict[str, Any] | None = Field(description="The tag set that the model writes; null for a plain model.")
    dialects: list[str] = Field(description="Names that `/parse` knows.")
    preset: str | None = Field(description="The family whose preset it is asked, sampled and read by; null if it is of none.")
    preset_reason: str = Field(description="What it is known by.")
    preset_sampling: dict[str, Any] = Field(description="Sampling parameters of requests that do not say otherwise.")
