"""The run directory: where a run lives, which config it holds, and who may write in it.

A run is named by what determines its result. `run_hash` covers everything that determines the trained model and its curves,
and nothing else, so that the same command finds its own directory again: it resumes there, or shows what is done. One process
owns a directory, by a lock that the kernel gives back when the process dies.

What a directory holds is in the project's README; this module writes `config.yaml` and two hidden files, `.run.json` (what was
hashed, to say later how another config differs) and `.lock`.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic, sleep, strftime
from typing import IO, Any, Literal

import yaml
from rich.markup import escape

from dgr_lightning.config import REFINE_KEYS, TUNING_KEYS, Config
from dgr_lightning.console import say
from dgr_lightning.errors import UserError
from dgr_lightning.records import content_hash, file_hash, read_json, write_json, write_text

Kind = Literal["train", "refine", "evaluate"]

# Part of every run hash. Raise it when a change of the code makes the same config train another model.
RECIPE_VERSION = 3

SUMMARY = "summary.json"
_RUN = ".run.json"
_LOCK = ".lock"
_POLL_SECONDS = 0.1
_SHOWN_DIFFERENCES = 12

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
# Keys that hold a path to a text, and the shipped text that null stands for: the content is hashed.
_REFINEMENT = Path(__file__).parent / "refinement"
_BY_CONTENT = {
    "trace_template": _REFINEMENT / "templates" / "dgr_trace.jinja",
    "answer_template": _REFINEMENT / "templates" / "dgr_answer.jinja",
    "response_template": _REFINEMENT / "templates" / "{strategy}.jinja",
    "meta_thinking": _REFINEMENT / "meta_thinking.txt",
}
_JUDGE_PHRASES = Path(__file__).parent / "judge_phrases.txt"
# What refine.py does not do. sft.max_length stays: it cuts the texts whose NLL the stage reports.
_NOT_HASHED_BY_REFINE = ("tuning", "probes", "trainer", *(f"sft.{key}" for key in ("lr", "epochs", "max_steps", "batch_size")))
_NOT_HASHED_BY_REFINE += tuple(f"sft.{key}" for key in ("optimizer", "weight_decay", "warmup_ratio", "clip_norm", "select"))


@dataclass(frozen=True)
class Place:
    """Where a run goes: `root/<name>/<slug>-<hash>`, or exactly the directory that the user named (hydra.run.dir=…)."""

    root: Path = Path("runs")
    exact: Path | None = None


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
    ThinkSafe's guard is the configured judge, which for every other strategy serves evaluation alone.
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
        strategy = cfg.refine.strategy
        refine = {key: plain["refine"][key] for key in REFINE_KEYS[strategy]}
        for name in refine.keys() & _BY_CONTENT.keys():
            refine[name] = _content_of(refine[name] or str(_BY_CONTENT[name]).format(strategy=strategy))
        plain["refine"] = {"strategy": strategy} | refine
        if "tuning" in plain:
            read = ("method", *TUNING_KEYS[cfg.tuning.method])
            plain["tuning"] = {key: value for key, value in plain["tuning"].items() if key in read}
        if "temperature" not in refine:
            for key in ("name", "served_model", "max_length"):
                del plain["engine"][key]
        if strategy == "thinksafe":
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


class RunDir:
    """A run directory that this process owns until `close`, or until the process ends in whatever way.

    Attributes:
        path: the directory.
        hash: the run hash that it holds.
    """

    def __init__(self, path: Path, run_hash: str, lock: IO[str]) -> None:
        """Use `open`."""
        self.path, self.hash, self._lock = path, run_hash, lock

    @classmethod
    def open(
        cls, cfg: Config, identities: Mapping[str, Any], place: Place, kind: Kind = "train", wait_seconds: float = 10.0
    ) -> RunDir:
        """Makes or takes up the directory of a run, locks it, and writes the resolved config into it.

        With `cfg.overwrite` everything that an earlier run of the same hash left there is deleted first.

        Args:
            cfg: the checked config, `auto` values resolved.
            identities: as for `run_hash`.
            place: where it goes.
            kind: which entry point it belongs to; `refine-` and `evaluate-` begin the names of theirs.
            wait_seconds: how long to wait for another process that owns the directory.

        Raises:
            UserError: the directory holds another run or something else, or its owner does not let go of it. Nothing in it
                was touched.
        """
        described = describe(cfg, identities, kind)
        digest = run_hash(cfg, identities, kind)
        path = place.exact or place.root / cfg.name / f"{slug(cfg, kind)}-{digest}"
        _check_holds(path, digest, described)
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = open(path / _LOCK, "a+", encoding="utf-8")  # noqa: SIM115 - open for as long as the run
        except OSError as error:
            raise UserError(f"{path}: cannot be used as a run directory ({error.strerror}).") from error
        try:
            _acquire(lock, path, wait_seconds)
            _check_holds(path, digest, described)  # again: who had the lock may have been the first to write
            if cfg.overwrite:
                _empty(path)
            write_json(path / _RUN, {"hash": digest, "described": described})
            write_text(path / "config.yaml", f"# run {digest}, resolved\n{yaml.safe_dump(asdict(cfg), sort_keys=False)}")
        except BaseException:
            lock.close()
            raise
        return cls(path, digest, lock)

    @property
    def done(self) -> bool:
        """Whether the run is complete: its summary, written last, is there."""
        return (self.path / SUMMARY).exists()

    def close(self) -> None:
        """Gives the directory back."""
        self._lock.close()

    def __enter__(self) -> RunDir:
        """Returns itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Gives the directory back."""
        self.close()


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


def _check_holds(path: Path, digest: str, described: dict[str, Any]) -> None:
    """Raises UserError where a path is anything but free, or the directory of this very run. Only reads."""
    if not path.exists():
        return
    if not path.is_dir():
        raise UserError(f"{path}: a file lies where the run directory should be; give another hydra.run.dir= or name=.")
    if not (path / _RUN).exists():
        if any(entry.name != _LOCK for entry in path.iterdir()):
            raise UserError(f"{path}: holds files, but no run of this project; give a new or an empty directory.")
        return
    there = read_json(path / _RUN)
    if there["hash"] == digest:
        return
    lines = _differences(there["described"], described)
    shown = "".join(f"\n  {line}" for line in lines[:_SHOWN_DIFFERENCES])
    more = f"\n  … and {len(lines) - _SHOWN_DIFFERENCES} more" if len(lines) > _SHOWN_DIFFERENCES else ""
    raise UserError(
        f"{path}: holds run {there['hash']}, and this config is run {digest}. They differ in{shown}{more}\n"
        "Give another hydra.run.dir=, or delete that directory yourself. Nothing in it was touched."
    )


def _differences(there: Any, here: Any, key: str = "") -> list[str]:
    """Returns a line for every value that differs; what only one side has is named where nothing else tells them apart."""
    if not (isinstance(there, dict) and isinstance(here, dict)):
        return [] if there == here else [f"{key}: {there!r} there, {here!r} here"]
    prefix = f"{key}." if key else ""
    lines = [line for name in there if name in here for line in _differences(there[name], here[name], prefix + name)]
    if not lines:
        lines += [f"{prefix}{name}: {there[name]!r} there, not here" for name in there if name not in here]
        lines += [f"{prefix}{name}: {here[name]!r} here, not there" for name in here if name not in there]
    return lines


def _acquire(lock: IO[str], path: Path, wait_seconds: float) -> None:
    """Takes the lock. flock belongs to the open file: the kernel lets go of it with the last process that has it open."""
    deadline = monotonic() + wait_seconds
    waiting = False
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            if monotonic() >= deadline:
                raise UserError(
                    f"{path}: in use by {holder}. Wait for its end, or stop it; the same command then goes on from there. "
                    "Another name= or hydra.run.dir= starts a run of its own."
                ) from None
            if not waiting:
                say(f"waiting up to {wait_seconds:.0f} s for {escape(holder)}, which has {escape(str(path))} open")
                waiting = True
            sleep(_POLL_SECONDS)
    lock.seek(0)
    lock.truncate()
    lock.write(f"process {os.getpid()} on {socket.gethostname()} since {strftime('%H:%M:%S')}\n")
    lock.flush()


def _empty(path: Path) -> None:
    """Deletes what an earlier run left, its summary first: a directory that is half emptied is not done."""
    (path / SUMMARY).unlink(missing_ok=True)
    for entry in path.iterdir():
        if entry.name in (_LOCK, _RUN):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
