"""What names a run: everything that determines its result, and nothing else.

`run_hash` covers everything that determines the trained model and its curves, so that the same command finds its own directory
again: it resumes there, or shows what is done.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from dgr_lightning.config import TUNING_KEYS, Config
from dgr_lightning.hashes import content_hash, file_hash
from dgr_lightning.prompts.templates import SHIPPED
from dgr_lightning.refinement.strategy import strategy_of

Kind = Literal["train", "refine", "evaluate"]

# Part of every run hash. Raise it when a change of the code makes the same config train another model.
RECIPE_VERSION = 3

# Keys that name the same result in another way, say where things lie, or belong to the machine. Everything that is not listed
# is hashed: a key that a later version adds separates runs until somebody decides that it need not.
_NOT_HASHED = (
    "name",
    "overwrite",
    # The content of model and data is hashed instead: see `identities`.
    *(f"model.{key}" for key in ("name", "hub_id", "revision", "path", "recipe", "seed", "language", "trust_remote_code")),
    *(f"data.{key}" for key in ("hub_id", "revision", "split", "path", "recipe", "language")),
    *(f"data.benign.{key}" for key in ("hub_id", "revision", "split", "path")),
    "refine.name",
    *(f"engine.{key}" for key in ("batch_size", "tensor_parallel", "replicas", "memory", "cpu_cache_gib", "compile")),
    *(f"engine.{key}" for key in ("url", "timeout_seconds", "retries", "ray_address")),
    "shift",  # what is measured of it changes nothing about what is trained
    "tuning.quant_storage",
    "sft.max_tokens",
    *(f"trainer.{key}" for key in ("name", "accelerator", "strategy", "devices", "nodes", "recompute_every", "shard_size")),
    *(f"trainer.{key}" for key in ("compile", "cpu_offload", "checkpoint_every", "keep_checkpoints", "max_restarts")),
    "probes.path",
    "evaluation",
    "judge",
    "logger",
)
_JUDGE_PHRASES = SHIPPED / "refusal_phrases.txt"
# What refine.py does not do. sft.max_length stays: it cuts the texts whose NLL the stage reports.
_NOT_HASHED_BY_REFINE = ("tuning", "probes", "trainer", *(f"sft.{key}" for key in ("lr", "epochs", "max_steps", "batch_size")))
_NOT_HASHED_BY_REFINE += tuple(f"sft.{key}" for key in ("optimizer", "weight_decay", "warmup_ratio", "clip_norm", "select"))


def run_hash(cfg: Config, identities: Mapping[str, Any], kind: Kind = "train") -> str:
    """Returns the 12 hex digits that name a run: equal where the trained model and its curves are.

    Args:
        cfg: the checked config, `auto` values resolved.
        identities: what stands for content that the config only points at, JSON-able: `model` and `data` (content hashes),
            and where curves are asked for `probes` (content of the probe tasks). For `evaluate` runs `evaluation` (content of
            the tasks).
        kind: `refine` leaves out what only training reads; `evaluate` hashes model, tasks and how they are generated.
    """
    return content_hash(describe(cfg, identities, kind))[:12]


def evaluation_hash(cfg: Config, identities: Mapping[str, Any]) -> str:
    """Returns 12 hex digits over what is measured and how: tasks and their content, sampling, engine, judge.

    It is no part of a training run's hash. A summary that was written under another evaluation is written anew, and nothing
    is trained again for it.
    """
    return content_hash(describe(cfg, identities, "evaluate") | {"model": None})[:12]


def describe(cfg: Config, identities: Mapping[str, Any], kind: Kind = "train") -> dict[str, Any]:
    """Returns what the run hash is made of, nested and JSON-able: the config without what does not determine the result.

    Of `refine` and `tuning` there is what the strategy and the method read; where nothing is generated, no engine is in it.
    The configured judge is in it where it is the strategy's guard; for every other strategy it serves evaluation alone.
    """
    plain = asdict(cfg)
    if kind == "evaluate":
        evaluation = {key: value for key, value in plain["evaluation"].items() if key not in ("name", "path")}
        described: dict[str, Any] = {
            "model": {"chat_style": cfg.model.chat_style, "content": identities.get("model")},
            "evaluation": evaluation | {"content": identities.get("evaluation")},
            "engine": {key: plain["engine"][key] for key in ("name", "served_model", "precision", "max_length")},
            "judge": _judge(cfg),
        }
    else:
        for key in _NOT_HASHED + (_NOT_HASHED_BY_REFINE if kind == "refine" else ()):
            _drop(plain, key)
        strategy = strategy_of(cfg.refine)
        refine = {key: plain["refine"][key] for key in strategy.keys}
        for key, shipped in strategy.shipped_texts.items():  # the content of a text is hashed, not its path
            refine[key] = _content_of(plain["refine"][key] or str(shipped))
        plain["refine"] = {"strategy": cfg.refine.strategy} | refine | strategy.identity
        if "tuning" in plain:
            read = ("method", *TUNING_KEYS[cfg.tuning.method])
            plain["tuning"] = {key: value for key, value in plain["tuning"].items() if key in read}
        if not strategy.generates:
            for key in ("name", "served_model", "max_length"):
                del plain["engine"][key]
        if strategy.uses_guard:
            plain["refine"]["guard"] = _judge(cfg)
        described = plain | {"content": {key: identities[key] for key in ("model", "data", "probes") if key in identities}}
        if kind == "refine":
            described["content"].pop("probes", None)
    return described | {"kind": kind, "recipe_version": RECIPE_VERSION}


def _judge(cfg: Config) -> dict[str, Any]:
    return {"name": cfg.judge.name, "phrases": _content_of(cfg.judge.phrases or str(_JUDGE_PHRASES))}


def slug(cfg: Config, kind: Kind = "train") -> str:
    """Returns the readable part of a run directory's name, of [A-Za-z0-9._-] alone."""
    model = cfg.model.name or "model"
    if kind == "evaluate":
        parts = [f"evaluate-{model}", cfg.evaluation.name]
    else:
        parts = [model, cfg.data.name, cfg.refine.name or cfg.refine.strategy]
        if kind == "train":
            parts += [] if cfg.tuning.method == "full" else [f"{cfg.tuning.method}-r{cfg.tuning.rank}"]
            parts += [f"lr{cfg.sft.lr:g}"]
        parts += [f"seed{cfg.seed}"]
        parts[0] = parts[0] if kind == "train" else f"refine-{parts[0]}"
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "_".join(part for part in parts if part)).lstrip(".-")


def _drop(plain: dict[str, Any], dotted: str) -> None:
    """Deletes a key of a nested dict; a key that is not there is a mistake in the lists above."""
    *sections, name = dotted.split(".")
    for section in sections:
        if section not in plain:
            return  # its whole section is dropped
        plain = plain[section]
    plain.pop(name)


def _content_of(path: str | None) -> str | None:
    return None if path is None else file_hash(Path(path).expanduser())
