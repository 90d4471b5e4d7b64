"""A grid of runs: started as sweeps of train.py over bases and seeds, and read back from the directories of its finished runs.

The runs lie in runs/<name> of the working directory, where train.py puts them. A finished run is not made again, so the same
command continues an interrupted grid; that it was asked for is noted. What was made or asked for since a study began is what
its command stands for, whatever else lies in the folder. Bases share nothing, so each can be swept in a process of its own.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from time import time
from typing import IO, Any, TypeVar

import yaml
from rich.markup import escape

from dgr_lightning.config import Config
from dgr_lightning.config.study import StudyConfig
from dgr_lightning.console import progress, say
from dgr_lightning.evaluation.subjects import SUBJECTS, outputs_file
from dgr_lightning.files import read_json, read_jsonl
from dgr_lightning.installation import script_name
from dgr_lightning.pipeline.run_directory import last_asked, read_described
from dgr_lightning.processes import python_module
from dgr_lightning.report.summary import SUMMARY
from dgr_lightning.statistics.intervals import Estimate
from dgr_lightning.tasks.metrics import KINDS
from dgr_lightning.threads import usable_cores
from dgr_lightning.training.curves import read_curves

K = TypeVar("K", bound=Hashable)

ProblemOutcomes = dict[str, dict[str, dict[str, dict[str, float]]]]
"""headline rate → task → side → id of a problem → the mean of its verdicts."""

_POLL_SECONDS = 1.0
# A file system's clock may lag behind time() by a tick.
_CLOCK_SECONDS = 0.1

RATES = tuple(kind.headline for kind in KINDS.values())
"""The headline rates of summary.json; `probe/<rate>` are their curves."""


@dataclass(frozen=True)
class FinishedRun:
    """A run directory whose summary.json is written.

    Attributes:
        directory: of the run.
        config: its resolved config.yaml.
        summary: its summary.json.
        finished: when that was written, or asked for again, in seconds since the epoch.
    """

    directory: Path
    config: dict[str, Any]
    summary: dict[str, Any]
    finished: float

    @property
    def base(self) -> int:
        """`model.seed`: which miniature it started from."""
        return int(self.config["model"]["seed"])

    @property
    def seed(self) -> int:
        """The run's own seed."""
        return int(self.config["seed"])

    @property
    def lr(self) -> float:
        """Peak learning rate."""
        return float(self.config["sft"]["lr"])

    @property
    def arm(self) -> str:
        """`refine.name`."""
        return str(self.config["refine"]["name"])

    def hashed(self) -> dict[str, Any]:
        """Returns the content of the run hash: every key that determines the result, with hashes of model and data."""
        return read_described(self.directory)

    def rate(self, rate: str, side: str = "tuned") -> Estimate:
        """Returns a headline rate of the tuned model, or of the base, on the evaluation split."""
        return Estimate(**self.summary[side]["headline"][rate])

    @property
    def tax(self) -> Estimate:
        """Loss of reasoning accuracy, as a share in -1 … 1, on the evaluation split."""
        return Estimate(**self.summary["tax"]["points"]).scaled(0.01)

    @cached_property
    def outcomes(self) -> ProblemOutcomes | None:
        """What each problem came to on the evaluation split; None where the run's outputs are not all there."""
        found: ProblemOutcomes = {}
        for side in SUBJECTS:
            for task in self.summary[side]["tasks"]:
                if not (path := outputs_file(self.directory, side, task)).exists():
                    return None
                verdicts: dict[str, list[bool]] = {}
                for row in read_jsonl(path):
                    kind = KINDS[row["kind"]]
                    verdicts.setdefault(row["id"], []).append(bool(row[kind.verdict]))
                means = {id_: sum(own) / len(own) for id_, own in verdicts.items()}
                found.setdefault(kind.headline, {}).setdefault(task, {})[side] = means
        return found

    @cached_property
    def probe(self) -> dict[str, float]:
        """The headline rates of the trained model on the probe split: the last points of the curves."""
        curves = read_curves(self.directory / "metrics.csv")
        return {rate: curves[f"probe/{rate}"][-1][1] for rate in RATES if f"probe/{rate}" in curves}


def override(key: str, values: Sequence[Any]) -> str:
    """Returns the override that sweeps a key over values."""
    return f"{key}={','.join(map(str, values))}"


def sweep(study: StudyConfig, name: str, overrides: Sequence[str], num_runs: int) -> bool:
    """Sweeps every base of a study over overrides, in `study.workers` processes; returns whether every run finished.

    Args:
        study: `bases`, `seeds` and `workers` are read.
        name: the runs lie in runs/<name>.
        overrides: of every run; those with several values are swept. Of two of one key the last one counts.
        num_runs: of each base, for the progress bar.
    """
    cores = usable_cores()
    workers = min(study.workers or cores, len(study.bases))
    threads = {} if workers == 1 else {"OMP_NUM_THREADS": str(max(1, cores // workers))}
    folder = Path("runs", name)
    last_of_each = {text.partition("=")[0]: text for text in overrides}
    total, start = num_runs * len(study.bases), now()

    sweeps = _Processes()

    def of_base(base: int) -> bool:
        arguments = [f"name={name}", f"model.seed={base}", override("seed", study.seeds), *last_of_each.values()]
        return _train(["-m", *arguments], threads, folder / f"base-{base}.log", sweeps)

    # The kernel ends a child with the thread that started it: the pool's threads live until all of them are done.
    with ThreadPoolExecutor(workers) as pool, progress(f"{name}: runs", total) as advance:
        waiting, shown = {pool.submit(of_base, base) for base in study.bases}, 0
        finished = []
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=_POLL_SECONDS)
                finished += [future.result() for future in done]
                found = min(total, sum(1 for _ in _summaries(folder, start)))
                advance(found - shown)
                shown = found
        except BaseException:  # stopped: nothing more is started, and what runs ends as if it had been stopped itself
            pool.shutdown(wait=False, cancel_futures=True)
            sweeps.stop()
            raise
    return all(finished)


def now() -> float:
    """Returns the time by which the files that are written from here on are told from older ones."""
    return time() - _CLOCK_SECONDS


def _summaries(folder: Path, since: float) -> Iterator[Path]:
    return (path for path in folder.glob(f"*/{SUMMARY}") if last_asked(path.parent) >= since)


def is_published(study: StudyConfig, overrides: Sequence[str]) -> bool:
    """Whether a study is the one whose findings are published: nothing but the number of its workers differs."""
    return not overrides and replace(study, workers=None) == StudyConfig(name=study.name)


def output_folder(cfg: Config, overrides: Sequence[str], *, complete: bool) -> Path:
    """Returns where findings go: `study.out`; what is incomplete, or another study than the published one, beside its runs.

    Args:
        cfg: `study` and `name` are read.
        overrides: further ones of every run.
        complete: whether every run is there.
    """
    study = cfg.study
    elsewhere = study.out != StudyConfig().out
    return Path(study.out) if complete and (elsewhere or is_published(study, overrides)) else Path("runs", cfg.name)


class _Processes:
    """Processes that several threads run, and that end together when the user stops the study."""

    def __init__(self) -> None:
        self._begun: list[subprocess.Popen[bytes]] = []
        self._stopped = False

    def run(self, command: Sequence[str], environment: Mapping[str, str], output: IO[bytes]) -> int:
        """Runs a command to its end and returns its exit code."""
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        self._begun.append(process)
        if self._stopped:  # while it was started
            process.terminate()
        return process.wait()

    def stop(self) -> None:
        """Ends those that run."""
        self._stopped = True
        for process in self._begun:
            process.terminate()


def _train(arguments: Sequence[str], defaults: Mapping[str, str], log: Path, sweeps: _Processes) -> bool:
    """Trains to the end of a sweep, its output appended to a log; returns whether it succeeded.

    Args:
        arguments: of the command.
        defaults: environment variables for it where the user has set none.
        log: receives its output.
        sweeps: runs it.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    started, parent = script_name("train"), str(os.getpid())
    command, environment = python_module("dgr_lightning.cli.sweep_process", parent, started, *arguments)
    with open(log, "ab") as output:
        code = sweeps.run(command, {**defaults, **environment}, output)
    if code:
        say(f"[red]a sweep ended with exit code {code}; its output is in {escape(str(log))}[/]")
    return code == 0


def finished_runs(folder: Path, since: float = 0.0) -> list[FinishedRun]:
    """Returns the finished trainings of a folder that were made or asked for since a time, in that order."""
    runs = []
    for path in _summaries(folder, since):
        config = yaml.safe_load((path.parent / "config.yaml").read_text(encoding="utf-8"))
        runs.append(FinishedRun(path.parent, config, read_json(path), last_asked(path.parent)))
    return sorted((run for run in runs if "tuned" in run.summary), key=lambda run: (run.finished, run.directory))


def grouped(runs: Iterable[FinishedRun], key: Callable[[FinishedRun], K]) -> dict[K, list[FinishedRun]]:
    """Returns key → its runs, both in the order of the runs."""
    groups: dict[K, list[FinishedRun]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return groups


def by_base(runs: Iterable[FinishedRun]) -> dict[int, list[FinishedRun]]:
    """Returns base → its runs, both in order."""
    return grouped(sorted(runs, key=lambda run: (run.base, run.seed)), lambda run: run.base)
