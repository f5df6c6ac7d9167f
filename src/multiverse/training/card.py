"""What a finished model says of itself: a summary of its training, its base's licence, and a model card. No torch."""

from __future__ import annotations

import re
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..models import resolve
from ..models.fingerprint import fingerprint
from ..models.resolve import find, looks_local, named
from ..prompting import Mode
from .config import Config, RunConfig
from .curve import read_log

if TYPE_CHECKING:
    from .loading import RunInputs

LOG = "log.jsonl"
_LICENCES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "NOTICE", "NOTICE.txt", "COPYING", "USE_POLICY.md")
_LAST = 20  # steps over which the final loss is averaged


class Base(NamedTuple):
    """The model that a run started from.

    Attributes:
        name: as adapters name it: the registry's name, the hub id, or the absolute path of a folder.
        source: the kind of source that a named model is from; `None` for others.
        fingerprint: of its weights; `None` for a hub id.
        license: its licence's identifier, if it says.
        files: its licence's texts.
    """

    name: str
    source: str | None
    fingerprint: str | None
    license: str | None
    files: tuple[Path, ...]

    def summary(self) -> dict[str, str | None]:
        """What a finished model notes of it."""
        return {"model": self.name, "source": self.source, "fingerprint": self.fingerprint, "license": self.license}


def base_of(config: RunConfig) -> Base:
    """The model that a run starts from."""
    source, model = resolve(config.model), named(config.model)
    found = find(model) if model is not None else None
    card = _file_of(source, "README.md")
    stated = re.search(r"\A---\n.*?^license: *([^\n]+)", card.read_text(), re.DOTALL | re.MULTILINE) if card else None
    name = model.entry.name if model is not None else config.model
    files = [_file_of(source, name) for name in _LICENCES]
    return Base(
        name=str(Path(config.model).expanduser().resolve()) if model is None and looks_local(config.model) else name,
        source=found.kind if found is not None else None,
        fingerprint=fingerprint(source),
        license=stated[1].strip().strip("'\"") if stated else model.entry.license if model is not None else None,
        files=tuple(file for file in files if file is not None),
    )


def _file_of(source: str, name: str) -> Path | None:
    """A file of a folder, or of a hub id's cached files."""
    from transformers.utils.hub import cached_file

    if looks_local(source):
        return path if (path := Path(source) / name).is_file() else None
    found = cached_file(
        source,
        name,
        local_files_only=True,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return Path(found) if found is not None else None


def copy_licence(base: Base, folder: Path) -> None:
    """Copy the texts of the base's licence, which weights derived from it are under."""
    for file in base.files:
        if file.is_file() and file.parent.resolve() != folder.resolve():
            shutil.copyfile(file, folder / file.name)


class Summary(NamedTuple):
    """What a finished model says of its training.

    Attributes:
        values: what was trained on what, and how it went, as JSON values.
        command: what it was trained with.
        rows: of the table in its card, by heading.
    """

    values: dict[str, Any]
    command: str
    rows: dict[str, str]


def summarize(config: Config, inputs: RunInputs, base: Base, out: Path) -> Summary:
    """The summary of a run of `multiverse train`."""
    records = read_log(out / LOG) if (out / LOG).exists() else []
    losses = [record["loss"] for record in records if "loss" in record]
    validation = {name: value for record in records for name, value in record.items() if name.endswith("_loss")}
    values = {
        "base": base.summary(),
        "dialect": config.dialect,
        "layout": config.layout,
        "instruct": config.instruct,
        "preset": inputs.family.name if inputs.family is not None else None,
        "instructions": dict(inputs.corpus.featurizer.prompting.instructions),
        "data": list(config.data),
        "documents": len(inputs.corpus),
        "validation_documents": inputs.validation_documents,
        "faulty_rows": len(inputs.faults),
        "parallel_share_of_each_epoch": list(config.shares),
        "steps": inputs.schedule.steps,
        "rows": len(inputs.schedule.rows),
        "tokens": inputs.schedule.tokens,
        "loss_tokens": inputs.schedule.loss_tokens,
        "first_loss": losses[0] if losses else None,
        "last_loss": round(sum(losses[-_LAST:]) / len(losses[-_LAST:]), 4) if losses else None,
        "validation_losses": validation,
        "seconds": records[-1]["seconds"] if records else None,
        "versions": versions("multiverse-llm", "torch", "transformers"),
    }
    return Summary(values, "multiverse train", _card_rows(values))


def versions(*packages: str) -> dict[str, str]:
    """Versions of these packages, as far as they are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from its sources
            continue
    return found


_KINDS = {
    "full": "All weights of {base} were trained.",
    "merged": "Adapters were trained on {base} and merged into its weights.",
    "adapter": (
        "These are adapters and the rows of the tags alone: they are merged into the weights of {base}, which has to be at "
        "hand when the model is loaded."
    ),
}


def _card_rows(summary: dict[str, Any]) -> dict[str, str]:
    shares = summary["parallel_share_of_each_epoch"]
    modes: tuple[tuple[Mode, bool], ...] = (("parallel", max(shares) > 0), ("sequential", min(shares) < 1))
    asked = [f"“{summary['instructions'][mode]}”" for mode, used in modes if used]
    return {
        "documents": f"{summary['documents']:,}, and {summary['validation_documents']:,} for validation",
        "run": f"{summary['steps']:,} steps, {summary['tokens']:,} tokens, {summary['loss_tokens']:,} of them with loss",
        "loss": f"{_number(summary['first_loss'])} in the first step, {_number(summary['last_loss'])} in the last {_LAST}",
        **{name.removeprefix("eval_").replace("_", " "): _number(v) for name, v in summary["validation_losses"].items()},
        "dialect": summary["dialect"],
        "layout": summary["layout"],
        **({"asked as": f"a model of the family {summary['preset']}"} if summary["preset"] is not None else {}),
        "prompts end with": " or ".join(asked) if summary["instruct"] else "nothing of ours",
    }


def write_card(folder: Path, summary: Summary) -> None:
    """Write the model card, README.md."""
    values = summary.values
    base, lines = values["base"], ["---"]
    lines += [f"license: {base['license']}"] if base["license"] else []
    lines += [f"base_model: {base['model']}"] if not Path(base["model"]).is_absolute() else []
    lines += ["library_name: multiverse", "pipeline_tag: text-generation", "tags: [multiverse, fork-and-join]", "---", ""]
    lines += [f"# {folder.resolve().parent.name}", ""]
    lines += [
        f"A language model that forks and joins while it decodes, trained with `{summary.command}`. "
        f"{_KINDS[values['kind']].format(base=base['model'])} In this folder:",
        "",
        "    multiverse generate --model . 'Your question'",
        "    multiverse chat --model .",
        "    multiverse serve --model .",
        *(
            ["    multiverse merge . --out merged        # for engines that load no adapters"]
            if values["kind"] == "adapter"
            else []
        ),
        "",
    ]
    rows = {
        **summary.rows,
        "type of the tensors": values["dtype"],
        "licence of the base": base["license"] or "not stated in its files",
    }
    lines += ["| training | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items()), ""]
    lines += ["`training.yaml` has every setting, `training.json` these figures and more.", ""]
    (folder / "README.md").write_text("\n".join(lines))


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4g}"
