"""The command line of the comparison: run directories, and where its files go.

It reads what runs have left on disk and loads no model, so it has no config and is no run itself.
"""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent

from dgr_lightning import __version__
from dgr_lightning.cli.failures import BAD_CONFIG, DONE, NO_FAILURES, exit_code, show_error, show_failure, show_stopped
from dgr_lightning.errors import UserError
from dgr_lightning.files import local_path
from dgr_lightning.installation import command_line
from dgr_lightning.processes import sigterm_raises

_HELP = """\
    Compares finished runs of train.py and evaluate.py: every pair on the problems that both were given.

        {started} RUN RUN … [out=FOLDER]

    Examples
      {started} runs/dgr/<vanilla run> runs/dgr/<dgr run>
          what refinement changes: two trainings of one base
      {started} runs/dgr/evaluate-<base> runs/dgr/<run> out=comparison
          a model before and after; any number of runs may be named

    RUN     a directory with a summary.json. Of a training its tuned model counts, of an evaluation its only one.
    out     where the files go; without it runs/compare-<hash of the runs>.

    The folder holds comparison.html and outputs.html (every output side by side), which load nothing, comparison.json (every
    paired difference with its 95 % interval), details.json (p-values, problems that changed, what was left out) and figures/
    (SVG).

    Only what means the same is paired: problems of one id and one prompt, judged by one judge. Tasks that one run has not
    measured are left out and named. {evaluate} 'models=[A,B]' measures several models and compares them in one command."""


def main(arguments: list[str]) -> int:
    """Runs a command line and returns the exit code: 0, 1 failed, 2 bad input, 130 or 143 stopped."""
    with sigterm_raises():
        try:
            if {"--help", "-h"} & set(arguments):
                print(dedent(_HELP).format(started=command_line("compare"), evaluate=command_line("evaluate")))
                return DONE
            if "--version" in arguments:
                print(f"dgr-lightning {__version__}")
                return DONE
            compare(*read(arguments))
            return DONE
        except UserError as error:
            show_error(str(error))
            return BAD_CONFIG
        except KeyboardInterrupt as stop:
            return show_stopped(stop)
        except NO_FAILURES:
            raise
        except BaseException as error:
            show_failure(error)
            return exit_code(error)


def read(arguments: list[str]) -> tuple[list[str], Path | None]:
    """Returns the run directories and the folder of a command line; None where it names no folder.

    Raises:
        UserError: an argument is neither.
    """
    runs: list[str] = []
    out: list[str] = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if argument.startswith("-"):
            raise UserError(f"{argument}: no such flag. There are --help and --version; the folder is named with out=<folder>.")
        if equals and key == "out":
            out.append(value)
        elif equals and not local_path(argument).exists():
            raise UserError(f"{argument}: the only key is out=<folder>; what a run measured was chosen when it ran.")
        else:
            runs.append(argument)
    if len(out) > 1 or "" in out:
        raise UserError(f"{' '.join(f'out={one}' for one in out)}: name one folder, such as out=comparison.")
    return runs, local_path(out[0]) if out else None


def compare(runs: list[str], out: Path | None = None) -> Path:
    """Compares runs, prints the tables, and returns the folder of the files.

    Raises:
        UserError: as `experiments.comparison.compare`.
    """
    from rich.text import Text

    from dgr_lightning.console import console
    from dgr_lightning.experiments import comparison
    from dgr_lightning.report.comparison_table import show

    out = out or comparison.default_folder(runs)
    show(comparison.compare(runs, out))
    for name in (comparison.PAGE, comparison.OUTPUTS, comparison.PAIRS):
        console.print(Text.assemble((f"{name}  ", "bold"), str(out / name)), soft_wrap=True)
    return out


def script() -> None:
    """The entry point: `compare.py`, or `dgr-compare`."""
    sys.exit(main(sys.argv[1:]))
