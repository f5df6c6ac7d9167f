"""Train multiverse-mini from nothing: about an hour on two cores, minutes on a GPU.

    python -m recipes.mini.train                      # as shipped: writes src/multiverse/models/mini
    python -m recipes.mini.train --minutes 10 --out /tmp/mini --run runs/quick --fresh

A run lives in its folder: the tokenizer, a checkpoint every two minutes, the newest model, and `log.jsonl`. Started again it
goes on where the checkpoint is, along the same curve; Ctrl-C saves first. `--fresh` begins anew. With `--steps` the schedule
follows the steps and a run is reproducible from its seed; with `--minutes` it follows the clock and ends on time.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim import AdamW, Muon, Optimizer
from transformers import AutoTokenizer, Qwen3ForCausalLM
from transformers.utils.logging import disable_progress_bar

from multiverse.training import Features, answer_logits, collate, micro_batches, pack

from .mixture import MODES, Source, documents, held_out, prefetch
from .model import SHAPES, build_model
from .tokenizer import build, sample_texts

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Settings:
    """What a run is; a checkpoint resumes only under the same settings.

    Attributes:
        shape: name in `SHAPES`.
        steps: length of the schedule in steps; 0 when it follows the clock.
        minutes: length of the schedule in minutes of training; 0 when it follows the steps.
        seed: of the weights and of the data.
        tokens: tokens in a step, about.
        row: short documents share rows of up to this many tokens.
        micro: tokens in one forward pass, padding included.
        muon: whether the hidden matrices are trained by Muon; everything else is AdamW's.
        lr: peak learning rate of AdamW.
        muon_lr: peak learning rate of Muon, scaled to match the size of AdamW's updates.
        weight_decay: of all matrices but the embeddings.
        warmup: steps from a small learning rate to the peak.
        steady: share of the schedule after which the learning rate begins to fall, to zero at the end.
    """

    shape: str = "mini"
    steps: int = 0
    minutes: float = 0.0
    seed: int = 0
    tokens: int = 4096
    row: int = 384
    micro: int = 2048
    muon: bool = True
    lr: float = 3e-3
    muon_lr: float = 5e-3
    weight_decay: float = 0.05
    warmup: int = 60
    steady: float = 0.3


class Trainer:
    """Model, optimisers and step count; all that a checkpoint holds."""

    def __init__(self, settings: Settings, run: Path, device: str = "cpu", init: Path | None = None) -> None:
        self.settings, self.run, self.device = settings, run, torch.device(device)
        run.mkdir(parents=True, exist_ok=True)
        self.tokenizer_folder = str(run / "tokenizer")
        if not (run / "tokenizer" / "tokenizer.json").exists():
            build(sample_texts()).save_pretrained(run / "tokenizer", save_jinja_files=False)
        self.tokenizer = AutoTokenizer.from_pretrained(self.tokenizer_folder)
        torch.manual_seed(settings.seed)
        model = build_model(SHAPES[settings.shape], self.tokenizer)
        if init is not None:
            model.load_state_dict(Qwen3ForCausalLM.from_pretrained(init).state_dict())
        self.model: Any = model.to(self.device)  # type: ignore[arg-type]  # decorated in transformers without its self
        self.optimizers = make_optimizers(self.model, settings)
        self.peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]
        self.step = 0
        self.seconds = 0.0
        self.tokens = 0

    @property
    def progress(self) -> float:
        """Share of the schedule that is done."""
        if self.settings.steps:
            return self.step / self.settings.steps
        return self.seconds / (60 * self.settings.minutes)

    def source(self) -> Source:
        """Where the documents come from."""
        return Source(self.tokenizer_folder, self.settings.seed, self.settings.tokens)

    def train_step(self, drawn: Sequence[Features]) -> float:
        """One update on these documents; the mean loss per token before it."""
        scale = rate(self.progress, self.step, self.settings)
        for optimizer, peaks in zip(self.optimizers, self.peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * scale
        targets = sum(label >= 0 for document in drawn for label in document.labels)
        total = 0.0
        self.model.train()
        for rows in micro_batches(pack(drawn, self.settings.row), self.settings.micro):
            logits_NV, targets_N = self.forward(rows)
            loss = cross_entropy(logits_NV, targets_N, reduction="sum") / targets
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        self.tokens += sum(map(len, drawn))
        return total

    def forward(self, rows: Sequence[Sequence[Features]]) -> tuple[Tensor, Tensor]:
        """Logits and targets of packed rows, in row order."""
        batch = collate(rows, self.tokenizer.pad_token_id).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16):
            return answer_logits(self.model, batch)

    @torch.no_grad()
    def evaluate(self, documents: Sequence[Features]) -> tuple[float, float]:
        """Teacher forced: share of tokens that are right, and of documents in which every token is right."""
        self.model.eval()
        right = total = exact = 0
        ordered = sorted(documents, key=len, reverse=True)
        for rows in micro_batches([[document] for document in ordered], 2 * self.settings.micro):
            logits_NV, targets_N = self.forward(rows)
            counts = [sum(label >= 0 for label in row[0].labels) for row in rows]
            for hits in torch.split(logits_NV.argmax(-1) == targets_N, counts):
                right, total, exact = right + int(hits.sum()), total + hits.numel(), exact + int(hits.all())
        return right / total, exact / len(documents)

    def save(self) -> None:
        """Write the checkpoint; whoever is killed meanwhile still finds the one before."""
        state = {
            "settings": asdict(self.settings),
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "seconds": self.seconds,
            "tokens": self.tokens,
            "rng": torch.get_rng_state(),
        }
        torch.save(state, self.run / "checkpoint.tmp")
        (self.run / "checkpoint.tmp").replace(self.run / "checkpoint.pt")

    def resume(self) -> bool:
        """Go on from the run's checkpoint, if there is one.

        Raises:
            ValueError: the checkpoint was made under other settings.
        """
        path = self.run / "checkpoint.pt"
        if not path.exists():
            return False
        state = torch.load(path, map_location=self.device, weights_only=True)
        ours = asdict(self.settings)
        other = {name: value for name, value in state["settings"].items() if value != ours[name]}
        if other:
            raise ValueError(f"{path} was made with {other}: use the same settings, another --run, or --fresh")
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        torch.set_rng_state(state["rng"].cpu())
        self.step, self.seconds, self.tokens = state["step"], state["seconds"], state["tokens"]
        return True

    def export(self, folder: Path) -> None:
        """Write a plain Hugging Face folder."""
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent) as temporary:
            self.model.save_pretrained(temporary)
            self.tokenizer.save_pretrained(temporary, save_jinja_files=False)
            for file in Path(temporary).iterdir():
                file.chmod(0o644)  # safetensors writes for the owner alone, and this travels in a wheel
                file.replace(folder / file.name)


def make_optimizers(model: torch.nn.Module, settings: Settings) -> list[Optimizer]:
    """AdamW for the embeddings, the head and the norms; the matrices between them are Muon's, or AdamW's with weight decay."""
    named = dict(model.named_parameters())
    matrices = [p for name, p in named.items() if p.ndim == 2 and "layers" in name]
    others = [p for name, p in named.items() if p.ndim != 2 or "layers" not in name]
    adamw: dict[str, Any] = {"lr": settings.lr, "betas": (0.9, 0.95), "eps": 1e-10}
    if not settings.muon:
        groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
        return [AdamW(groups, fused=True, **adamw)]
    muon = Muon(matrices, lr=settings.muon_lr, weight_decay=settings.weight_decay, adjust_lr_fn="match_rms_adamw")
    return [muon, AdamW(others, weight_decay=0.0, fused=True, **adamw)]


def rate(progress: float, step: int, settings: Settings) -> float:
    """Learning rate as a share of its peak: a short climb, level, then straight down to zero."""
    climb = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    return climb * min(1.0, max(0.0, 1.0 - progress) / (1.0 - settings.steady))


def train(
    trainer: Trainer, *, stop: int | None = None, save_every: float = 120.0, eval_every: float = 400.0, held: int = 16
) -> bool:
    """Train to the end of the schedule, or to step `stop`; log, evaluate and save on the way.

    Returns:
        False when a signal ended it early; the checkpoint is then where it stopped.
    """
    console = Console()
    log = Log(trainer.run / "log.jsonl", trainer.step)
    groups = held_out(trainer.tokenizer_folder, held) if held else {}
    source = trainer.source()
    batches = (
        prefetch(source, trainer.step) if stop is None else (documents(source, step) for step in range(trainer.step, stop))
    )
    saved = evaluated = trainer.seconds

    def report() -> None:
        scores = {f"{family}/{mode}": trainer.evaluate(group) for (family, mode), group in groups.items()}
        log.write({"step": trainer.step, "seconds": round(trainer.seconds, 1), "eval": scores})
        for mode in MODES:
            line = "  ".join(
                f"{name.split('/')[0]} {score[0]:.3f} {score[1]:.2f}" for name, score in scores.items() if mode in name
            )
            console.print(f"step {trainer.step} {mode:10} (tokens, documents right)  {line}", highlight=False, soft_wrap=True)
        trainer.export(trainer.run / "model")

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.1f}%"), TimeElapsedColumn())
    with Progress(*columns, console=console, refresh_per_second=1) as bar, interruptible() as interrupted:
        task = bar.add_task("", total=1.0)
        smooth = 0.0
        while trainer.progress < 1 and (stop is None or trainer.step < stop) and not interrupted():
            began, tokens = time.monotonic(), trainer.tokens
            loss = trainer.train_step(next(batches))
            elapsed = time.monotonic() - began
            trainer.seconds += elapsed
            speed = (trainer.tokens - tokens) / elapsed
            smooth = loss if smooth == 0 else 0.95 * smooth + 0.05 * loss
            log.write({"step": trainer.step, "seconds": round(trainer.seconds, 1), "tokens": trainer.tokens, "loss": loss})
            left = trainer.seconds / trainer.progress * (1 - trainer.progress) / 60
            text = f"step {trainer.step}  loss {smooth:.4f}  {speed:,.0f} tokens/s  {left:.0f} min left"
            bar.update(task, completed=min(1.0, trainer.progress), description=text)
            if not console.is_terminal and trainer.step % 50 == 0:
                console.print(text, highlight=False, soft_wrap=True)
            if trainer.seconds - saved >= save_every:
                trainer.save()
                saved = trainer.seconds
            if groups and trainer.seconds - evaluated >= eval_every:
                report()
                evaluated = trainer.seconds
        trainer.save()
        if groups and not interrupted():
            report()
        return not interrupted()


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Ask the yielded function between two updates whether to stop; a signal amid an update would leave half of it done."""
    asked: list[int] = []
    before = {number: signal.signal(number, lambda got, _: asked.append(got)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Log:
    """A file of JSON lines; lines of steps that a resumed run will do again are dropped."""

    def __init__(self, path: Path, step: int) -> None:
        lines = path.read_text().splitlines() if path.exists() else []
        path.write_text("".join(f"{line}\n" for line in lines if json.loads(line)["step"] <= step))
        self.path = path

    def write(self, record: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")


def keep_freed_memory() -> None:
    """Let glibc reuse large blocks: giving them back costs a page fault per page and step, about a tenth of the time."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return  # not glibc
    mallopt(-4, 0)  # M_MMAP_MAX
    mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def main() -> None:
    default = Settings()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "src/multiverse/models/mini", help="where the finished model goes")
    parser.add_argument("--run", type=Path, default=ROOT / "runs/mini", help="where checkpoint and log live")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--steps", type=int, default=0)
    budget.add_argument("--minutes", type=float, default=0.0)
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on from the run's checkpoint (the default)")
    again.add_argument("--fresh", action="store_true", help="ignore the run's checkpoint and begin anew")
    parser.add_argument("--init", type=Path, help="start from the weights of this folder")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--shape", choices=SHAPES, default=default.shape)
    parser.add_argument("--muon", action=argparse.BooleanOptionalAction, default=default.muon)
    for name in ("seed", "tokens", "row", "micro", "lr", "muon-lr", "weight-decay", "warmup", "steady"):
        value = getattr(default, name.replace("-", "_"))
        parser.add_argument(f"--{name}", type=type(value), default=value)
    arguments = vars(parser.parse_args())
    if not arguments["steps"] and not arguments["minutes"]:
        arguments["steps"] = STEPS
    settings = Settings(**{name: arguments[name] for name in asdict(default)})
    keep_freed_memory()
    disable_progress_bar()  # transformers' own, at every save
    torch.set_num_threads(arguments["threads"])
    run: Path = arguments["run"]
    if arguments["fresh"]:
        for name in ("checkpoint.pt", "log.jsonl", "tokenizer/tokenizer.json"):
            (run / name).unlink(missing_ok=True)
    trainer = Trainer(settings, run, arguments["device"], arguments["init"])
    if trainer.resume():
        print(f"resuming at step {trainer.step}")
    print(f"{sum(p.numel() for p in trainer.model.parameters()):,} parameters, {len(trainer.tokenizer)} tokens, {settings}")
    if not train(trainer):
        print(f"saved at step {trainer.step}; start again to go on")
        return
    trainer.export(arguments["out"])
    print(f"{arguments['out']}: {trainer.step} steps, {trainer.tokens:,} tokens, {trainer.seconds / 60:.1f} minutes")


STEPS = 4150
"""Length of the shipped run."""


if __name__ == "__main__":
    main()
