"""Compares a judge or a grader with labels on files of anyone's.

    python -m dgr_lightning.scoring.check judge=keywords FILE [FILE …] out=verdicts.jsonl
    python -m dgr_lightning.scoring.check judge=qwen3guard judge.model=Qwen/Qwen3Guard-Gen-0.6B FILE out=verdicts.jsonl
    python -m dgr_lightning.scoring.check grader FILE out=verdicts.jsonl [grader=maths|choice|text]

FILE is JSON lines, JSON, CSV, TSV or parquet. A judge reads `text`, and `prompt` where there is one; a grader reads `output`
and `gold`. Of both, what follows the last </think> is judged; a thought that is never closed has no answer. Labels are
optional: `refused` and `harmful` (a judge), `correct` (a grader), each true or false, 1 or 0, or a word such as refused. A
column of another name is given as text=completion or refused=final_label. Rows of one `group` or `model` (group=<column>), or
of one file, are also compared by themselves.

out= gets a line for each row, in order: `refused harmful probability score error`, or `correct outcome boxed final`, with `id`
where there is one. The screen shows agreement, precision, recall and Cohen's κ with 95 % intervals; texts of one prompt may
depend on each other.

judge= takes every judge of this project, or package.module:Name; judge.<key>, engine=<choice>, engine.<key> and trainer.<key>
are as for evaluate.py.

Exit code 0; 2 for a file, a column or a key that is not there; 1 where the judge or the grader fails.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table as Drawn
from rich.text import Text

from dgr_lightning.config import Config, schema
from dgr_lightning.console import console, progress
from dgr_lightning.errors import Incomplete, UserError
from dgr_lightning.files import exists, local_path, write_jsonl
from dgr_lightning.installation import CONF
from dgr_lightning.scoring.agreement import Agreement, agreement
from dgr_lightning.scoring.grader import GRADERS
from dgr_lightning.scoring.judge import HARMFUL, JUDGES, NO_TEXT, REFUSED, Exchange, Judge, Verdict, open_judge
from dgr_lightning.scoring.labelled_texts import Table, answer_of, read_table
from dgr_lightning.statistics.intervals import Estimate

CORRECT = "correct"
_COLUMNS = ("text", "prompt", REFUSED, HARMFUL, "output", "gold", CORRECT, "group")
_GROUPS = ("judge", "engine")
_SECTIONS = ("judge", "engine", "trainer")
_EVERYTHING = "all"


@dataclass
class Command:
    """A command line.

    Attributes:
        files: to read.
        out: where verdicts go; None: nowhere.
        grader: its name; None: a judge is checked.
        names: what is looked for → its column.
        keys: overrides of the config, `judge.model` → value, and of the groups `judge` and `engine`.
    """

    files: list[Path] = field(default_factory=list)
    out: Path | None = None
    grader: str | None = None
    names: dict[str, str] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)


def read_command(arguments: Sequence[str]) -> Command:
    """Reads a command line.

    Raises:
        UserError: a word that means nothing here, no file, or neither a judge nor a grader.
    """
    command = Command()
    for word in arguments:
        name, equals, value = word.partition("=")
        if word == "grader":
            command.grader = command.grader or "maths"
        elif not equals or exists(local_path(word)):
            if word.startswith("-"):
                raise UserError(f"{word}: no such option; --help shows what there is.")
            command.files.append(local_path(word))
        elif name == "out":
            command.out = local_path(value)
        elif name == "grader":
            command.grader = value
        elif name in _COLUMNS:
            command.names[name] = value
        elif name in _GROUPS or name.partition(".")[0] in _SECTIONS:
            command.keys[name] = value
        else:
            raise UserError(f"{word}: nothing of this name is read here; --help shows what there is.")
    judges = [key for key in command.keys if key.partition(".")[0] == "judge"]
    if command.grader is None and not judges:
        raise UserError("neither a judge nor a grader is named; write judge=keywords, or grader.")
    if command.grader is not None and judges:
        raise UserError(f"{judges[0]}={command.keys[judges[0]]}: a grader is checked here; write one of them.")
    if not command.files:
        raise UserError("no file is named; write it behind, such as labelled.jsonl. --help shows which columns are read.")
    if command.out is not None and command.out.is_dir():
        raise UserError(f"out={command.out}: a folder; name a file, such as out={command.out / 'verdicts.jsonl'}.")
    if command.out is not None and any(
        exists(command.out) and command.out.samefile(file) for file in command.files if exists(file)
    ):
        raise UserError(f"out={command.out}: the file that is read; name another one.")
    return command


def config_of(keys: Mapping[str, str]) -> Config:
    """Returns the config of a judge, as `evaluate.py` would compose it for it.

    Args:
        keys: `judge` and `engine` as choices, and dotted keys over them.

    Raises:
        UserError: a choice or a key that does not exist, a value of the wrong type or out of range.
    """
    import yaml

    plain = schema.defaults()
    for group in _GROUPS:
        choice = keys.get(group, "auto" if group == "engine" else "keywords")
        file = CONF / group / f"{choice}.yaml"
        if file.is_file():
            plain[group] |= yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        elif group == "judge":
            JUDGES.get(choice)  # raises where there is none
            plain[group]["name"] = choice
        else:
            known = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
            raise UserError(f"{group}={choice}: expected one of {', '.join(known)}.")
    for key, value in keys.items():
        if key in _GROUPS:
            continue
        if not schema.is_key(key) or key == "judge.also":
            raise UserError(
                f"{key}={value}: " + ("one judge is checked at a time." if "also" in key else schema.unknown_key(key))
            )
        section, _, name = key.partition(".")
        try:
            plain[section][name] = yaml.safe_load(value)
        except yaml.YAMLError:
            plain[section][name] = value
    return schema.build(plain, {"judge.name": JUDGES.names()})


def check_judge(table: Table, cfg: Config) -> tuple[list[dict[str, Any]], dict[str, list[bool | None]]]:
    """Returns the line of every row, and what the judge says by field; None where it could not tell.

    Raises:
        UserError: a column is missing, or the judge cannot be used.
    """
    texts = [answer_of(text) for text in table.texts("text")]
    prompts = table.texts("prompt") if table.column("prompt") else [""] * len(texts)
    judge = _open(cfg)
    asked = [index for index, text in enumerate(texts) if text is not None]
    verdicts = [Verdict(error=NO_TEXT)] * len(texts)
    with closing(judge), progress(f"judge={judge.name}", len(texts)) as advance:
        advance(len(texts) - len(asked))
        found = judge.verdicts([Exchange(prompts[index], texts[index] or "") for index in asked], advance)
    for index, verdict in zip(asked, found, strict=True):
        verdicts[index] = verdict
    said: dict[str, list[bool | None]] = {}
    for name in (REFUSED, HARMFUL):
        if name in judge.says:
            said[name] = [getattr(verdict, name) for verdict in verdicts]
    if REFUSED in said:  # an output that never got to an answer is no refusal
        said[REFUSED] = [False if verdict.error == NO_TEXT else verdict.refused for verdict in verdicts]
    lines = [{**vars(verdict), **{name: said[name][index] for name in said}} for index, verdict in enumerate(verdicts)]
    return lines, said


def check_grader(table: Table, name: str) -> tuple[list[dict[str, Any]], dict[str, list[bool | None]]]:
    """Returns the line of every row, and whether it is correct.

    Raises:
        UserError: a column or a gold answer is missing, or there is no such grader.
    """
    outputs, golds = table.texts("output"), [gold.strip() for gold in table.texts("gold")]
    if "" in golds:
        raise UserError(f"{table.places[golds.index('')]}: no gold answer; leave such rows out.")
    with GRADERS.get(name)() as grader, progress(f"grader={name}@{grader.version}", len(golds)) as advance:
        grades = grader.grades([(answer_of(text), gold) for text, gold in zip(outputs, golds, strict=True)], advance)
    lines = [{CORRECT: grade.correct, "outcome": grade.outcome, "boxed": grade.boxed, "final": grade.final} for grade in grades]
    return lines, {CORRECT: [grade.correct for grade in grades]}


def compare(table: Table, said: Mapping[str, Sequence[bool | None]]) -> list[tuple[str, str, Agreement, int]]:
    """Returns (group, field, agreement, rows with a label and no verdict) for every label that the file has."""
    clusters = table.texts("prompt") if table.column("prompt") else [str(number) for number in range(len(table.rows))]
    groups = list(dict.fromkeys(table.groups))
    found = []
    for name, values in said.items():
        labels = table.labels(name)
        if labels is None:
            continue
        for group in [*groups, _EVERYTHING] if len(groups) > 1 else [_EVERYTHING]:
            inside = [
                index
                for index, label in enumerate(labels)
                if label is not None and (group == _EVERYTHING or table.groups[index] == group)
            ]
            told = [index for index in inside if values[index] is not None]
            figures = agreement(
                [bool(values[index]) for index in told],
                [bool(labels[index]) for index in told],
                [clusters[index] for index in told],
            )
            found.append((group, name, figures, len(inside) - len(told)))
    return found


def show(found: Sequence[tuple[str, str, Agreement, int]]) -> None:
    """Prints the agreement, a line a group and field."""
    drawn = Drawn(box=None, pad_edge=False)
    drawn.add_column("", overflow="fold")
    for heading in ("n", "agreement", "precision", "recall", "κ"):
        drawn.add_column(heading, justify="right", no_wrap=True)
    for group, name, one, untold in found:
        figures = [_figure(figure) for figure in (one.agreement, one.precision, one.recall, one.kappa)]
        drawn.add_row(Text(f"{group}: {name}"), str(one.n), *figures)
        if untold:
            drawn.add_row(Text("  without a verdict", style="yellow"), str(untold))
    console.print(drawn)


def run(arguments: Sequence[str]) -> None:
    """Runs a command line.

    Raises:
        UserError: see the module.
    """
    command = read_command(arguments)
    table = read_table(command.files, command.names)
    names = (CORRECT,) if command.grader is not None else (REFUSED, HARMFUL)
    for name in names:
        table.labels(name)  # a label that says nothing is an error before anything is judged
    if command.grader is not None:
        lines, said = check_grader(table, command.grader)
    else:
        lines, said = check_judge(table, config_of(command.keys))
    if command.out is not None:
        ids = [{"id": row["id"]} if "id" in row else {} for row in table.rows]
        write_jsonl(command.out, [{**own, **line} for own, line in zip(ids, lines, strict=True)])
    found = compare(table, said)
    for name, values in said.items():
        told = sum(value is not None for value in values)
        console.print(f"{name}: {sum(map(bool, values)):,} of {told:,} texts, {len(values) - told:,} without a verdict")
    if found:
        show(found)
    else:
        console.print(Text(f"no labels to compare with: no column {' or '.join(said)}"))
    if command.out is not None:
        console.print(Text(f"verdicts are in {command.out}"), soft_wrap=True)


def main() -> None:
    """Runs the command line of this process; the module says with which exit codes."""
    if {"-h", "--help"} & set(sys.argv[1:]) or len(sys.argv) == 1:
        print(__doc__)
        return
    try:
        run(sys.argv[1:])
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except Incomplete as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _open(cfg: Config) -> Judge:
    """Returns the judge, found or fetched, and answering; verdicts that cost a model's work are stored."""
    if cfg.judge.name == "keywords":
        return open_judge(cfg)  # without a look at engines, which import torch
    from dgr_lightning.scoring.cached_judge import open_cached_judge
    from dgr_lightning.scoring.endpoint import EndpointJudge
    from dgr_lightning.scoring.guard_choice import prepare_guards

    prepare_guards(cfg)
    if isinstance(judge := open_judge(cfg), EndpointJudge):
        judge.check()
    return open_cached_judge(cfg)


def _figure(one: Estimate) -> str:
    return "–" if one.value is None else f"{one.value:.3f}\n{one.low:.3f}–{one.high:.3f}"


if __name__ == "__main__":
    main()
