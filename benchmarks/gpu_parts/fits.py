"""Part 6: whole trainings of a tiny Qwen2 by `fit`, in all ways that one device allows: equal losses, equal exports.

Sharded and replicated ones run in a rank of their own over NCCL (in a dry run gloo), started as the project starts its ranks.
One is killed in the middle, by SIGKILL, and goes on from its checkpoint in a new process.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file

from benchmarks.gpu_parts.part import Line, Setup, each
from benchmarks.sft_throughput import Shape, random_model
from dgr_lightning.config import Config, SftConfig, TrainerConfig
from dgr_lightning.distributed.launch import run_ranks
from dgr_lightning.errors import one_line
from dgr_lightning.example import Example
from dgr_lightning.micro import corpus
from dgr_lightning.micro.tokenizer import build_tokenizer
from dgr_lightning.models.chat import Chat
from dgr_lightning.models.weights import load_model
from dgr_lightning.training.curves import read_curves
from dgr_lightning.training.fit import fit

_STEPS, _KILLED_AT, _CHECKPOINT_EVERY = 12, 8, 3
_TOLERANCE = {"fp32": 1e-4, "bf16": 0.02}
_WORDS = "start with 9 , step a : subtract 5 multiply 8 last digit is it harmful to"

Ways = dict[str, dict[str, object]]
"""Name → `trainer` keys."""

_IN_PROCESS: Ways = {"single": {}, "recompute": {"recompute_every": 1}, "compile": {"compile": True}}
_IN_RANKS: Ways = {
    "ddp": {"strategy": "ddp"},
    "fsdp": {"strategy": "fsdp"},
    "fsdp, offload": {"strategy": "fsdp", "cpu_offload": True},
    "fsdp, recompute": {"strategy": "fsdp", "recompute_every": 1},
}
_KILLED: Ways = {"fsdp, killed": {"strategy": "fsdp"}}


def prove(setup: Setup) -> Iterator[Line]:
    """Yields a line a training; its losses and its export are compared with those of the first one of its precision."""
    base = _save_base(setup)
    yield from _compare(setup, base, "fp32", _IN_PROCESS, _IN_RANKS | _KILLED)
    if not setup.dry:
        yield from _compare(setup, base, "bf16", _IN_PROCESS, _IN_RANKS)


def _compare(setup: Setup, base: Path, precision: str, in_process: Ways, in_ranks: Ways) -> Iterator[Line]:
    folder = setup.folder / precision
    first = folder / next(iter(in_process))
    line = partial(_line, setup, first, precision=precision)
    trainings = {
        name: partial(_train, base, _config(setup, precision, **keys), folder / name) for name, keys in in_process.items()
    }
    yield from each({f"{name}, {precision}": partial(line, folder / name, training) for name, training in trainings.items()})
    jobs = {
        name: (base, _config(setup, precision, **keys), folder / name) for name, keys in in_ranks.items() if name not in _KILLED
    }
    failures = run_ranks(partial(train_all, jobs), 1)
    yield from each(
        {f"{name}, {precision}": partial(line, folder / name, partial(_raise, failures.get(name))) for name in jobs}
    )
    for name in in_ranks.keys() & _KILLED.keys():
        cfg = _config(setup, precision, **in_ranks[name])
        training = partial(run_ranks, partial(train_killed, base, cfg, folder / name), 1, max_restarts=1)
        yield from each({f"{name}, {precision}": partial(line, folder / name, training)})


def train_all(jobs: Mapping[str, tuple[Path, Config, Path]]) -> dict[str, str]:
    """Runs several trainings in the same rank, since its start takes longer; returns the errors of those that failed."""
    failures = {}
    for name, job in jobs.items():
        try:
            _train(*job)
        except Exception as error:
            failures[name] = f"{type(error).__name__}: {one_line(error, 300)}"
    return failures


def train_killed(base: Path, cfg: Config, run_dir: Path) -> int:
    """Trains in a process that is killed once, in the middle; returns the step that it resumed from."""
    marker = run_dir / "killed"

    def probe(model: object, step: int) -> dict[str, float]:
        if step == _KILLED_AT and not marker.exists():
            marker.write_text("", encoding="utf-8")
            os.kill(os.getpid(), signal.SIGKILL)
        return {}

    return fit(base, Chat.load(base), _examples(), cfg, run_dir, probe).resumed_from_step


def _train(base: Path, cfg: Config, run_dir: Path) -> int:
    return fit(base, Chat.load(base), _examples(), cfg, run_dir).resumed_from_step


def _raise(error: str | None) -> int:
    if error is not None:
        raise RuntimeError(error)
    return 0


def _line(setup: Setup, first: Path, run_dir: Path, training: partial[int], *, precision: str) -> Line:
    resumed_from_step = training()
    if run_dir.name in _KILLED and not 0 < resumed_from_step < _KILLED_AT:
        raise RuntimeError(f"resumed from step {resumed_from_step}")
    found, expected = _losses(run_dir), _losses(first)
    difference = max(abs(one / other - 1) for one, other in zip(found, expected, strict=True))
    exported, reference = (load_file(folder / "model" / "model.safetensors") for folder in (run_dir, first))
    model = load_model(run_dir / "model", "fp32", str(setup.device))
    with torch.no_grad():
        logits = model(torch.arange(2, 20, device=setup.device)[None]).logits
    return {
        "steps": len(found),
        "resumed_from_step": resumed_from_step,
        "loss_first": found[0],
        "loss_last": found[-1],
        "largest_loss_difference": difference,
        "equal_losses": difference < _TOLERANCE[precision],
        "largest_weight_difference": max(float((exported[name] - reference[name]).abs().max()) for name in reference),
        "export_reloads": bool(logits.isfinite().all()) and exported.keys() == reference.keys(),
    }


def _losses(run_dir: Path) -> list[float]:
    losses = [loss for _, loss in read_curves(run_dir / "metrics.csv")["train/loss"]]
    assert len(losses) == _STEPS, f"{len(losses)} steps in {run_dir.name}"
    return losses


def _config(setup: Setup, precision: str, **trainer: object) -> Config:
    cfg = Config(seed=3)
    cfg.sft = SftConfig(lr=1e-3, epochs=3, batch_size=4, max_length=256, max_tokens=128, weight_decay=0.1)
    keys = {"strategy": "single", "devices": 1, "checkpoint_every": _CHECKPOINT_EVERY} | trainer
    cfg.trainer = TrainerConfig(accelerator=setup.accelerator, precision=precision, **keys)  # type: ignore[arg-type]
    cfg.probes.every = _KILLED_AT
    return cfg


def _save_base(setup: Setup) -> Path:
    """Writes a tiny Qwen2 with the miniature's tokenizer and chat template."""
    folder, tokenizer = setup.folder / "base", build_tokenizer(corpus.utterances())
    # Heads of 64, for which every flash kernel is made.
    shape = (
        Shape(len(tokenizer), 32, 64, 2, 4, 2, tied=False)
        if setup.dry
        else Shape(len(tokenizer), 256, 512, 4, 4, 2, tied=False)
    )
    model = random_model(shape, "cpu")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _examples() -> list[Example]:
    known, rows = _WORDS.split(), []
    for index in range(4 * _STEPS // 3):
        words = [known[(index * 7 + place * place) % len(known)] for place in range(40)]
        cut = 10 + index % 13
        texts = " ".join(words[:8]), " ".join(words[8:cut]), " ".join(words[cut:])
        rows.append(Example(f"e-{index}", *texts, "harmful", "e"))
    return rows
