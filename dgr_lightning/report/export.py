"""A finished run for others' viewers: `python -m dgr_lightning.report.export RUN format=FORMAT out=FOLDER`.

    python -m dgr_lightning.report.export runs/micro/<run> format=inspect out=logs
    python -m dgr_lightning.report.export runs/micro/<run> format=lm-eval out=results

inspect: logs of Inspect, one a model and task, for `inspect view --log-dir logs` and its data frames.
lm-eval: results_<date>.json and samples_<task>_<date>.jsonl of lm-evaluation-harness, in a folder a model.

The files hold every prompt and output, those of harmful requests too; the command writes them to that folder alone.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.text import Text

from dgr_lightning.console import console
from dgr_lightning.errors import UserError
from dgr_lightning.files import local_path
from dgr_lightning.report import export_inspect, export_lm_eval
from dgr_lightning.report.exported_run import ExportedRun
from dgr_lightning.writing import CannotWrite

FORMATS = {"inspect": export_inspect.export, "lm-eval": export_lm_eval.export}


def export_run(run: Path, format_: str, out: Path) -> list[Path]:
    """Writes a run in a format and returns the files. What lies in the folder under other names stays.

    Args:
        run: directory of a finished run.
        format_: one of `FORMATS`.
        out: the folder; made where it is missing.

    Raises:
        UserError: there is no such format, no finished run or no output, or the folder is a file.
        CannotWrite: a file could not be written.
    """
    if format_ not in FORMATS:
        raise UserError(f"format={format_}: no such format; there are {' and '.join(FORMATS)}.")
    if out.exists() and not out.is_dir():
        raise UserError(f"out={out}: a file is there; name a folder.")
    return FORMATS[format_](ExportedRun.read(run), out)


def _settings(given: list[str]) -> dict[str, str]:
    settings = {}
    for text in given:
        name, sign, value = text.partition("=")
        if name not in ("format", "out") or not sign or not value:
            raise UserError(f"{text}: expected format=<{'|'.join(FORMATS)}> and out=<folder> after the run.")
        settings[name] = value
    for name, example in (("format", "inspect"), ("out", "logs")):
        if name not in settings:
            raise UserError(f"{name}: missing; write {name}={example}, for instance.")
    return settings


def main() -> None:
    """Exports a run. Exit code 2 for what is not there or cannot be understood, 1 for what cannot be written."""
    usage = str(__doc__)
    parser = argparse.ArgumentParser(description=usage, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="directory of a finished run")
    parser.add_argument("settings", nargs="*", metavar="format=… out=…", help="the format, and the folder to write to")
    options = parser.parse_args()
    try:
        settings = _settings(options.settings)
        out = local_path(settings["out"])
        files = export_run(options.run, settings["format"], out)
    except (UserError, CannotWrite) as error:
        print(error, file=sys.stderr)
        sys.exit(2 if isinstance(error, UserError) else 1)
    console.print(
        Text(f"{len(files)} files are in {out}; they hold every prompt and output, harmful ones too."), soft_wrap=True
    )


if __name__ == "__main__":
    main()
