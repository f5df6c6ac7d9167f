"""Options that several parts of the package have. Each declares its own as ``like(CommonOptions, "seed")``. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .options import Options, option

DialectChoice = Literal[
    "multiverse", "multiverse-answer", "multiverse-compact", "npr", "threadweaver", "threadweaver-conclusion"
]
"""Names of `structure.DIALECTS`."""
JoinChoice = Literal["kv", "text", "message"]
"""As `structure.Joins`."""

PresetChoice = Literal["auto", "none", "multiverse", "npr", "threadweaver"]
"""Names of `families.FAMILIES`; ``auto`` recognises the family of a model, ``none`` is none."""

QuantizeChoice = Literal["auto", "none", "int8", "int4"]
"""How many bits the weights of linear layers get on a CPU; ``auto`` takes those of a GGUF file."""

MalformedChoice = Literal["refuse", "as-released", "sequential"]
"""What becomes of blocks that break the rules of their dialect (`structure.Dialect.malformed`)."""

_MODEL, _SAMPLING = "Model", "Sampling"


@dataclass(frozen=True)
class CommonOptions(Options):
    """Options that several parts of the package have; their own defaults may differ."""

    model: str | None = option(
        None,
        "Name (see multiverse models), folder, GGUF file or hub id of a model; with a server, its name there.",
        flag="-m",
        metavar="NAME|PATH",
        group=_MODEL,
    )
    api_key: str | None = option(
        None,
        "The server's API key; better set as OPENAI_API_KEY, which no list of processes shows.",
        metavar="KEY",
        group=_MODEL,
        env="OPENAI_API_KEY",
        repr=False,
    )
    concurrency: int = option(32, "Most requests in flight.", ge=1, metavar="N", group="Limits")
    temperature: float = option(
        0.6,
        "0 takes the likeliest token; higher is more random.",
        ge=0,
        lt=1e6,
        allowed="0 or more (0 is greedy), within 1e-6 to 1e6",
        metavar="T",
        flag="-t",
        group=_SAMPLING,
    )
    seed: int | None = option(None, "Seed of everything random.", ge=0, allowed="0 or more", metavar="N", group=_SAMPLING)
    max_tokens: int = option(
        2048,
        "Most tokens of one generation, over all branches together.",
        ge=1,
        allowed="1 or more",
        metavar="N",
        group="Limits",
    )
    share_every: int | None = option(
        None,
        "Ablation: paths attend to each other's earlier chunks of K positions.",
        ge=1,
        allowed="1 or more, or None (paths stay apart)",
        metavar="K",
        group=_SAMPLING,
    )
    dialect: DialectChoice = option("multiverse", "Tag set of the documents.")
    join: JoinChoice | None = option(
        None,
        "What a parent gets of its paths at a join: keys and values (kv), their text, or a message of each.",
        metavar="kv|text|message",
        show_default="as noted in the model, or the dialect's",
    )
    malformed: MalformedChoice = option(
        "refuse",
        "Blocks that break the rules of their dialect: refuse them, take them as the family's own code does, or as text in one "
        "line. A guarded model writes none.",
    )
    layout: Literal["engine", "released"] | None = option(
        None,
        "Positions and visibility around paths: engine, or released (as the code that was published with the paper trains); "
        "see docs/layouts.md.",
        group=_MODEL,
        show_default="as the model says",
    )
    mode: Literal["parallel", "sequential", "as-is"] = option(
        "parallel",
        "Instruction that ends each question, of models that were trained with it; as-is adds none, and sequential keeps any "
        "model from forking.",
        group=_MODEL,
    )
    preset: PresetChoice = option(
        "auto", "How models of a family are asked, sampled and read; auto recognises the family.", group=_MODEL
    )
    instruction_file: str | None = option(
        None,
        "Text file with the instruction for parallel thinking.",
        metavar="FILE",
        group=_MODEL,
        show_default="the preset's, or instruction.txt of the model's folder",
    )
    validation: float = option(0.05, "Share of the questions to keep for validation.", ge=0, le=0.99, metavar="X")
