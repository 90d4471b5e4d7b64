"""The identity of a run: everything that determines its result, and nothing else.

A run is described once, hashed once, and the identity is passed on: to the directory that is named by it, to the model card, to
W&B. The same command finds its own directory again, resumes there, or shows what is done. Which keys count stands at the keys
(`config/`); which of `refine` a strategy reads stands in the strategy's file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dgr_lightning.config import Config, JudgeConfig, Kind
from dgr_lightning.config.keys import added_values, hashed, unread_by_method
from dgr_lightning.engines.registry import ENGINES
from dgr_lightning.evaluation.asking import LESS_THINK, ZERO_THINK
from dgr_lightning.hashes import content_hash, file_hash
from dgr_lightning.refinement.strategy import Strategy, strategy_of
from dgr_lightning.scoring.guard_choice import guard_class
from dgr_lightning.scoring.judge import JUDGES
from dgr_lightning.scoring.judge_template import read_template
from dgr_lightning.scoring.judges.keywords import list_hash
from dgr_lightning.training.optimizer import OPTIMIZERS

# Part of every run hash. Raise it when a change of the code makes the same config train another model.
RECIPE_VERSION = 3
# Keys of `judge` that only say where something lies, or that one guard alone reads: `_judge` describes them.
_BY_CONTENT = frozenset({"phrases", "model", "revision", "controversial"})

_JUDGING = frozenset({"refusal_lost", "refusal_gained"})
"""Checks of refinement that ask a judge whether a text refuses."""

Contents = Mapping[str, Any]
"""Content hashes of what the config only points at: `model`, `data`, `probes` (a list, by task), `evaluation` (likewise)."""


@dataclass(frozen=True)
class RunIdentity:
    """A run, identified by what determines its result.

    Attributes:
        kind: the entry point that it belongs to.
        described: all that determines the result, nested and JSON-able: two runs are the same where this is.
        slug: the readable part of its directory's name, of [A-Za-z0-9._-] alone.
    """

    kind: Kind
    described: dict[str, Any]
    slug: str

    @cached_property
    def hash(self) -> str:
        """The run hash, 12 hex digits: equal where the trained model and its curves are."""
        return content_hash(self.described)[:12]

    @property
    def directory(self) -> str:
        """Name of the run's directory."""
        return f"{self.slug}-{self.hash}"


def identify(cfg: Config, contents: Contents, kind: Kind = "train") -> RunIdentity:
    """Returns the identity of a run.

    Args:
        cfg: the checked config, `auto` values resolved.
        contents: `model` and `data`; for a training with curves `probes`; for an evaluation `model` and `evaluation`.
        kind: `refine` leaves out what only training reads; `evaluate` holds the model, the tasks and how outputs are generated.
    """
    described = _evaluation(cfg, contents) if kind == "evaluate" else _training(cfg, contents, kind)
    return RunIdentity(kind, described | {"kind": kind, "recipe_version": RECIPE_VERSION}, slug(cfg, kind))


def evaluation_hash(cfg: Config, contents: Contents) -> str:
    """Returns 12 hex digits over what is measured and how: tasks and their content, sampling, engine, judge.

    It is not part of a training run's hash: where the evaluation changed, the summary is written again and nothing is trained.
    """
    return content_hash(identify(cfg, contents, "evaluate").described | {"model": None})[:12]


def _training(cfg: Config, contents: Contents, kind: Kind) -> dict[str, Any]:
    """Describes a training or a refinement: of `refine` and `tuning` only what strategy and method read."""
    described, strategy = hashed(cfg, kind), strategy_of(cfg.refine)
    described["refine"] = _refine(described["refine"], cfg, strategy)
    for key in unread_by_method("tuning", cfg.tuning.method):
        described.get("tuning", {}).pop(key.removeprefix("tuning."), None)
    if strategy.generates:
        described["engine"] |= ENGINES.outside_code(cfg.engine.name)
    else:
        # The engine's precision stays: probes and the shift are computed in it.
        for name in ("name", "served_model", "max_length"):
            del described["engine"][name]
    if kind == "train":
        described["sft"] |= OPTIMIZERS.outside_code(cfg.sft.optimizer)
    if strategy.uses_guard:
        described["refine"]["guard"] = {key: value for key, value in _judge(cfg.judge).items() if key != "part"}
    elif _JUDGING & set(described["refine"].get("checks", ())):
        described["refine"]["judge"] = list_hash(None)  # the default one, whatever the evaluation's judge is
    if kind == "train" and cfg.probes.every and cfg.probes.tasks:
        described["probes"]["judge"] = list_hash(None)
    wanted = ("model", "data", "probes") if kind == "train" else ("model", "data")
    return described | {"content": {name: contents[name] for name in wanted if name in contents}}


def _refine(values: Mapping[str, Any], cfg: Config, strategy: Strategy) -> dict[str, Any]:
    """Returns the keys of `refine` that a strategy reads; for a key that names a text file, the hash of the text."""
    described: dict[str, Any] = {"strategy": cfg.refine.strategy} | {
        name: values[name] for name in strategy.keys if name in values
    }
    for name, shipped in strategy.shipped_texts.items():
        described[name] = file_hash(Path(described[name] or shipped).expanduser())
    return described | dict(strategy.identity)


def _evaluation(cfg: Config, contents: Contents) -> dict[str, Any]:
    described = hashed(cfg, "evaluate") | {"judge": _judge(cfg.judge)}
    described["judge"] |= {"also": [_judge(one) for one in cfg.judge.also]} if cfg.judge.also else {}
    described["engine"] |= ENGINES.outside_code(cfg.engine.name)
    if cfg.evaluation.attack_path is not None:
        described["evaluation"]["attack_text"] = file_hash(Path(cfg.evaluation.attack_path).expanduser())
    for section in ("model", "evaluation"):
        described[section]["content"] = contents.get(section)
    return described


def _judge(judge: JudgeConfig) -> dict[str, Any]:
    """Describes a judge: a guard by its model, a list by its text, and every other key by its value."""
    values = {key: value for key, value in added_values(judge).items() if key not in _BY_CONTENT}
    described = {"name": judge.name} | values | JUDGES.outside_code(judge.name)
    if (guard := guard_class(judge)) is not None:
        return described | guard.identity(judge)
    if judge.template is not None:
        described["template"] = content_hash(read_template(judge.template))
    return described | {"phrases": list_hash(judge.phrases)}


def _attacked(cfg: Config) -> list[str]:
    """Returns what the name of an evaluation says of an attack; a prefill of one's own is told from others by the hash."""
    prefill, attack = cfg.evaluation.prefill, cfg.evaluation.attack
    parts = [] if prefill is None else [prefill if prefill in (ZERO_THINK, LESS_THINK) else "prefill"]
    return parts + (["own-attack"] if cfg.evaluation.attack_path is not None else [attack] if attack is not None else [])


def slug(cfg: Config, kind: Kind) -> str:
    """Returns the readable part of the name of a run's directory."""
    model = cfg.model.name or "model"
    if kind == "evaluate":
        parts = [f"evaluate-{model}", cfg.evaluation.name, *_attacked(cfg)]
    else:
        parts = [model, cfg.data.name, cfg.refine.name or cfg.refine.strategy]
        if kind == "train":
            parts += [] if cfg.tuning.method == "full" else [f"{cfg.tuning.method}-r{cfg.tuning.rank}"]
            parts += [f"lr{cfg.sft.lr:g}"]
        parts += [f"seed{cfg.seed}"]
        parts[0] = parts[0] if kind == "train" else f"refine-{parts[0]}"
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "_".join(part for part in parts if part)).lstrip(".-")
