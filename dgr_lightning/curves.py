"""The curves of a training: metrics.csv always, Weights & Biases when asked.

`metrics.csv` has one row per optimizer step, headed `trainer/global_step` and the names of the curves; row 0 holds the probes
before any update. Probes of step k stand in the row of step k, other rows leave their columns empty, so a curve is
`table[["trainer/global_step", name]].dropna()`. Numbers are written in full float precision, each row is flushed, and a resumed
run first drops the rows behind the step that it goes on from. (Lightning's CSVLogger deletes the file on resume.)
"""

from __future__ import annotations

import csv
import io
import netrc
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlparse

from rich.markup import escape

from dgr_lightning.config import Config
from dgr_lightning.console import say
from dgr_lightning.records import write_text

if TYPE_CHECKING:
    from types import TracebackType

    from wandb.sdk.wandb_run import Run

STEP = "trainer/global_step"

# Keys of the config that say where things lie on this machine, or who uses it: W&B is told nothing of them.
_PRIVATE = ("path", "trace_template", "answer_template", "meta_thinking", "phrases", "entity", "overwrite")


@dataclass(frozen=True)
class WandbSettings:
    """Where a run appears in Weights & Biases.

    Attributes:
        id: the run's identity: a resumed run goes on under it.
        project: W&B project.
        entity: team or user; None is the account's default.
        group: what the runs of a sweep have in common.
        name: what W&B shows.
        folder: where W&B writes its own files.
        config: the run's config, without paths.
    """

    id: str
    project: str
    entity: str | None
    group: str
    name: str
    folder: Path
    config: dict[str, Any] = field(default_factory=dict)


def wandb_settings(cfg: Config, run_dir: Path, run_hash: str) -> WandbSettings | None:
    """Returns what W&B is to be told of a run; None where `logger=wandb` was not asked for."""
    if cfg.logger.name != "wandb":
        return None
    return WandbSettings(
        id=f"{cfg.name}-{run_hash}",
        project=cfg.logger.project,
        entity=cfg.logger.entity,
        group=cfg.logger.group or cfg.name,
        name=run_dir.name,
        folder=run_dir,
        config=_public(asdict(cfg)),
    )


def _public(config: dict[str, Any]) -> dict[str, Any]:
    return {key: _public(value) if isinstance(value, dict) else value for key, value in config.items() if key not in _PRIVATE}


class Curves:
    """Writes a run's curves; a context manager that closes what it opened, whatever happened inside."""

    def __init__(self, path: Path, resumed_step: int = 0, wandb: WandbSettings | None = None) -> None:
        """Takes up `path` where it is, without the rows behind `resumed_step` and without a row that a crash cut short.

        Args:
            path: metrics.csv; it need not exist.
            resumed_step: the optimizer step that training goes on from, 0 for a training from the beginning.
            wandb: where to send the same curves.
        """
        self._path = path
        self._columns: list[str] = [STEP]
        self._rows: dict[int, dict[str, float]] = {}
        if path.exists():
            self._read(resumed_step)
        # Written anew even if nothing was dropped: a last line without its end would swallow the next row.
        self._file = self._rewritten()
        self._wandb = None if wandb is None else _start_wandb(wandb)
        # A killed process takes with it what W&B had not yet written, so it is told again: equal values at equal steps.
        for step in self._rows:
            self._tell_wandb(step)

    def __contains__(self, step: int) -> bool:
        """Whether there is a row for a step."""
        return step in self._rows

    def column(self, name: str) -> dict[int, float]:
        """Returns one curve: its values by step, in the order of steps."""
        return {step: row[name] for step, row in self._rows.items() if name in row}

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Appends the row of a step, later than any before, and flushes it. New names become new columns."""
        row = {name: float(value) for name, value in values.items()}
        self._rows[step] = row
        new = [name for name in row if name not in self._columns]
        if new:
            self._columns += new
            self._file.close()
            self._file = self._rewritten()
        else:
            self._file.write(self._line(step, row))
            self._file.flush()
        self._tell_wandb(step)

    def close(self, failed: bool = False) -> None:
        """Closes the file and ends the W&B run, which sends what is left."""
        self._file.close()
        if self._wandb is not None:
            self._wandb.finish(exit_code=int(failed))
            self._wandb = None

    def __enter__(self) -> Curves:
        """Returns itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Closes; a run that ended in an exception is marked as failed."""
        self.close(failed=kind is not None)

    def _tell_wandb(self, step: int) -> None:
        if self._wandb is not None:
            self._wandb.log({**self._rows[step], STEP: step})

    def _read(self, resumed_step: int) -> None:
        whole_lines = self._path.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()
        header, *lines = list(csv.reader(whole_lines)) or [[STEP]]
        self._columns = header
        for cells in lines:
            step = int(cells[0])
            if step <= resumed_step:
                named = zip(header[1:], cells[1:], strict=True)
                self._rows[step] = {name: float(cell) for name, cell in named if cell}

    def _rewritten(self) -> IO[str]:
        """Writes the whole file, atomically, and returns it open for more."""
        text = _csv_line(self._columns) + "".join(self._line(step, row) for step, row in self._rows.items())
        write_text(self._path, text)
        return open(self._path, "a", encoding="utf-8", newline="\n")

    def _line(self, step: int, row: Mapping[str, float]) -> str:
        return _csv_line([str(step), *(repr(row[name]) if name in row else "" for name in self._columns[1:])])


def _csv_line(cells: list[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()


def _start_wandb(settings: WandbSettings) -> Run:
    """Starts or resumes a W&B run: offline where there is no account, and never with a question on the terminal."""
    import wandb

    def start(mode: str) -> Run:
        run = wandb.init(
            mode=mode,  # type: ignore[arg-type]
            id=settings.id,
            resume="allow",
            project=settings.project,
            entity=settings.entity,
            group=settings.group,
            name=settings.name,
            dir=settings.folder,
            config=settings.config,
            settings=wandb.Settings(silent=True, console="off", init_timeout=30, x_disable_meta=True, disable_git=True),
        )
        run.define_metric(STEP)
        run.define_metric("*", step_metric=STEP)
        return run

    mode = os.environ.get("WANDB_MODE", "online")
    if mode not in ("offline", "disabled") and not has_wandb_account():
        mode = "offline"
    try:
        run = start(mode)
    except wandb.Error as error:
        if mode != "online":
            raise
        say(f"[yellow]W&B cannot be reached ({escape(str(error))}): offline instead.[/]")
        run, mode = start("offline"), "offline"
    if mode == "offline":
        say(f"W&B: offline; send it later with [bold]wandb sync {escape(str(Path(run.dir).parent))}[/]")
    elif run.url:
        say(f"W&B: {escape(run.url)}")
    return run


def has_wandb_account() -> bool:
    """Whether this machine has a W&B key, in `WANDB_API_KEY` or in the netrc file that `wandb login` writes."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    file = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        return host is not None and netrc.netrc(file).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
