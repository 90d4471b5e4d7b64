"""One sample of a finished run in the terminal: `python -m dgr_lightning.report.show RUN ID`.

    python -m dgr_lightning.report.show runs/micro/<run> micro-long-17
    python -m dgr_lightning.report.show runs/micro/<run> gsm8k-12 --sample 3
    python -m dgr_lightning.report.show runs/micro/<run> micro-harmful-4 --harmful

The texts of a harmful request are printed with `--harmful` alone. All samples, to search and to filter, are in the run's
outputs.html.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.markup import escape
from rich.rule import Rule
from rich.text import Text

from dgr_lightning.console import console
from dgr_lightning.errors import UserError
from dgr_lightning.files import read_json
from dgr_lightning.report.samples import Row, Side, shown, sides_of
from dgr_lightning.report.summary import SUMMARY
from dgr_lightning.report.viewer import OUTPUTS, write_outputs


def find_sample(sides: Sequence[Side], id_: str, sample: int) -> list[tuple[Side, Row]]:
    """Returns a sample as each subject answered it.

    Args:
        sides: the subjects.
        id_: of the problem, such as `gsm8k-17`.
        sample: its number, from 0.

    Raises:
        UserError: there is no such problem, or it has fewer samples; the message names ids that are alike.
    """
    ids: dict[str, int] = {}
    found = []
    for side, row in _all_rows(sides):
        ids[row["id"]] = max(ids.get(row["id"], 0), row["sample"] + 1)
        if row["id"] == id_ and row["sample"] == sample:
            found.append((side, row))
    if found:
        return found
    if id_ in ids:
        raise UserError(f"{id_}: has {ids[id_]} samples; write --sample 0 to {ids[id_] - 1}.")
    near = difflib.get_close_matches(id_, ids, n=3) or list(ids)[:3]
    raise UserError(f"no sample is called {id_!r}; there are {len(ids)} problems, such as {', '.join(near)}.")


def show_sample(found: Sequence[tuple[Side, Row]], *, harmful: bool) -> None:
    """Prints a sample.

    Args:
        found: as `find_sample` returns it.
        harmful: whether the texts of a harmful request are printed.
    """
    first = found[0][1]
    hides = first["kind"] == "harmful" and not harmful
    console.print(Rule(escape(f"{first['id']} · sample {first['sample']} · {first['kind']}"), align="left"))
    if hides:
        console.print("[yellow]a harmful request: its texts are hidden; --harmful prints them[/]")
    else:
        _print_part("prompt", first["prompt"])
        if "gold" in first:
            _print_part("gold answer", first["gold"])
    for side, row in found:
        output = shown(row, side.formats)
        console.print(Rule(Text.assemble((side.label, "bold"), f" · {output.verdict}"), align="left"))
        for fact in output.facts:
            console.print(Text(fact, style="dim"))
        if not hides:
            _print_part("thinking", output.trace)
            _print_part("answer", output.answer)


def _all_rows(sides: Sequence[Side]) -> Iterator[tuple[Side, Row]]:
    for side in sides:
        for task in side.tasks:
            for row in side.rows(task):
                yield side, row


def _print_part(name: str, text: str | None) -> None:
    console.print(Text(name, style="bold"))
    console.print(Text("(none)" if text is None else text or "(empty)"))


def _finished_sides(run_dir: Path) -> list[Side]:
    if not (run_dir / SUMMARY).exists() or not (run_dir / "config.yaml").exists():
        raise UserError(f"{run_dir}: no finished run is there; name a run directory that holds summary.json.")
    sides = sides_of(run_dir, read_json(run_dir / SUMMARY))
    if not sides:
        raise UserError(f"{run_dir}: the run evaluated no model, so there is no output to show.")
    return sides


def main() -> None:
    """Prints a sample; without an id, writes outputs.html anew. Exit code 2 for what is not there."""
    usage = str(__doc__)
    parser = argparse.ArgumentParser(description=usage, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="directory of a finished run")
    parser.add_argument("id", nargs="?", help=f"of a problem, such as gsm8k-17; without one, {OUTPUTS} is written anew")
    parser.add_argument("--sample", type=int, default=0, help="number of the sample, from 0")
    parser.add_argument("--harmful", action="store_true", help="print the texts of a harmful request, too")
    options = parser.parse_args()
    try:
        sides = _finished_sides(options.run)
        if options.id is None:
            write_outputs(options.run, read_json(options.run / SUMMARY))
            console.print(Text(f"all samples are in {options.run / OUTPUTS}"), soft_wrap=True)
        else:
            show_sample(find_sample(sides, options.id, options.sample), harmful=options.harmful)
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
