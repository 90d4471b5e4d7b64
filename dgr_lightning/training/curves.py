"""The curves of a training: metrics.csv always, Weights & Biases when asked.

`metrics.csv` has one row per optimizer step, with the columns `trainer/global_step` and the names of the curves; row 0 has the
probes before any update. Probes of step k are in the row of step k, and their columns are empty in other rows, so a curve is
`table[["trainer/global_step", name]].dropna()`. Numbers are written in full float precision, each row is flushed, and a resumed
run first drops the rows after the step that it resumes from. (Lightning's CSVLogger deletes the file on resume.)
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from dgr_lightning.errors import UserError
from dgr_lightning.files import write_text
from dgr_lightning.training.wandb import STEP, WandbSettings, finish_wandb, start_wandb
from dgr_lightning.writing import writing

if TYPE_CHECKING:
    from types import TracebackType


class Curves:
    """The writer of a run's curves, a context manager that closes the file and the W&B run."""

    def __init__(self, path: Path, resumed_step: int = 0, wandb: WandbSettings | None = None) -> None:
        """Continues an existing file, without the rows after `resumed_step` and without a row that a crash cut short.

        Args:
            path: metrics.csv; it need not exist.
            resumed_step: the optimizer step that training resumes from; 0 for a new training.
            wandb: where to send the same curves; None: nowhere.
        """
        self._path = path
        self._columns: list[str] = [STEP]
        self._rows: dict[int, dict[str, float]] = {}
        if path.exists():
            self._read(resumed_step)
        # Rewritten even if nothing was dropped: the next row would be appended to an incomplete last line.
        self._file = self._rewritten()
        self._wandb = None if wandb is None else start_wandb(wandb)
        self._wandb_settings = wandb
        # Sent again, since a killed process loses rows that W&B had not yet written; equal values at equal steps do no harm.
        for step in self._rows:
            self._log_to_wandb(step)

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
            with writing(self._path):
                self._file.write(self._line(step, row))
                self._file.flush()
        self._log_to_wandb(step)

    def close(self, failed: bool = False) -> None:
        """Closes the file and finishes the W&B run, which sends the remaining rows."""
        with suppress(OSError) if failed else writing(self._path):  # a row that did not fit is tried once more
            self._file.close()
        if self._wandb is not None and self._wandb_settings is not None:
            finish_wandb(self._wandb, self._wandb_settings, failed=failed)
            self._wandb = None

    def __enter__(self) -> Curves:
        """Returns itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Closes; after an exception, the W&B run is marked as failed."""
        self.close(failed=kind is not None)

    def _log_to_wandb(self, step: int) -> None:
        if self._wandb is not None:
            self._wandb.log({**self._rows[step], STEP: step})

    def _read(self, resumed_step: int) -> None:
        self._columns, rows = _read_table(self._path)
        self._rows = {step: row for step, row in rows if step <= resumed_step}

    def _rewritten(self) -> IO[str]:
        """Writes the whole file atomically and returns it open for appending."""
        text = _csv_line(self._columns) + "".join(self._line(step, row) for step, row in self._rows.items())
        write_text(self._path, text)
        with writing(self._path):
            return open(self._path, "a", encoding="utf-8", newline="\n")

    def _line(self, step: int, row: Mapping[str, float]) -> str:
        return _csv_line([str(step), *(repr(row[name]) if name in row else "" for name in self._columns[1:])])


def _csv_line(cells: list[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()


def read_curves(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Returns curve → its (step, value) points, empty cells left out; nothing without a file.

    Args:
        path: metrics.csv.

    Raises:
        UserError: it is damaged.
    """
    curves: dict[str, list[tuple[float, float]]] = {}
    if not path.exists():
        return curves
    for step, row in _read_table(path)[1]:
        for name, value in row.items():
            curves.setdefault(name, []).append((float(step), value))
    return curves


def _read_table(path: Path) -> tuple[list[str], list[tuple[int, dict[str, float]]]]:
    """Returns the columns and the (step, values) rows of a metrics.csv, without a last line that a crash cut short.

    Raises:
        UserError: something else has damaged it; the message names the line.
    """
    rows: list[tuple[int, dict[str, float]]] = []
    try:
        whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
        header, *lines = list(csv.reader(whole.split("\n"))) if whole else [[STEP]]
        if header[:1] != [STEP] or len(set(header)) < len(header):
            raise ValueError
        for cells in lines:
            named = zip(header[1:], cells[1:], strict=True)
            rows.append((int(cells[0]), {name: float(cell) for name, cell in named if cell}))
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise UserError(
            f"{path}, behind {len(rows)} whole rows: damaged. Write overwrite=true to begin the run anew."
        ) from error
    return header, rows
