"""`--help` of the entry points: the groups and their choices, every key with its sentence and default, examples."""

from __future__ import annotations

from textwrap import fill, wrap

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from dgr_lightning.cli.overrides import choices, groups
from dgr_lightning.cli.registries import members
from dgr_lightning.config import schema
from dgr_lightning.config.keys import keys
from dgr_lightning.console import SafeConsole
from dgr_lightning.installation import CONF, command_line, script_name

_SUMMARY = {
    "train": "Refines a safety set with the target model (DGR, arXiv 2602.02136), trains on it, and measures the safety tax.",
    "refine": "Refines a safety set with the target model (DGR, arXiv 2602.02136), measures how far it lies from that model.",
    "evaluate": "Measures reasoning, refusal and over-refusal of any Hugging Face folder.",
}
_EXAMPLES = {
    "train": (
        ("python train.py", "the miniature, DirectRefusal, DGR, on two CPU cores"),
        ("python train.py refine=vanilla sft.lr=5e-4", "another arm, another learning rate"),
        ("python train.py -m refine=vanilla,dgr seed=1,2", "a sweep, one directory a point; finished points are not run again"),
        ("python train.py model=r1-distill-7b data=r1act refine=dgr", "the real thing, on a GPU"),
        ("python train.py model.path=<folder> data=star1 data.path=<file>", "local copies; model=local is understood"),
        (
            "python train.py data.mix='[{data: micro-r1act, share: .9}, {data: micro-retention, kind: retention, share: .1}]'",
            "several sources in one set",
        ),
        ("python train.py evaluation.limit=50", "evaluates the trained model again on 50 problems, and trains nothing"),
    ),
    "refine": (
        ("python refine.py", "the miniature rewrites DirectRefusal"),
        ("python refine.py model=r1-distill-7b data=star1 data.limit=100", "a hundred rows by a real model"),
        ("python refine.py data.path=rows.jsonl refine.tries=4", "rows of your own; data=local is understood"),
    ),
    "evaluate": (
        ("python evaluate.py model.path=runs/dgr/<run>/model", "what a run has trained"),
        ("python evaluate.py model=qwen3-4b evaluation.limit=50", "a hub model, 50 problems a task"),
        ("python evaluate.py model.path=<adapter> model.base=<folder or id on the hub>", "an adapter on its base"),
        (
            "python evaluate.py engine=server engine.url=http://127.0.0.1:8000/v1 model.hub_id=Qwen/Qwen3-4B",
            "what a server serves; config and tokenizer alone are fetched",
        ),
        (
            "python evaluate.py 'models=[runs/dgr/<run>,runs/dgr/<other run>,qwen3-4b]'",
            "several models, each in a run of its own, and a comparison of every pair; {compare} compares finished runs",
        ),
        ("python evaluate.py checkpoints=runs/dgr/<run>", "every checkpoint that a training has kept, as a curve"),
        ("python evaluate.py model=qwen3-4b evaluation=protocol-star1 judge=qwen3guard", "a paper's protocol, and a guard"),
    ),
}
_FLAGS = (
    ("-m", "run every combination of the values that are given with commas"),
    ("--cfg job", "show the composed config instead of running it"),
    ("--info defaults", "show which files it was composed from"),
    ("--config-dir <folder>", "add YAML of your own, such as <folder>/experiment/mine.yaml"),
    ("hydra.run.dir=<folder>", "put the run there; with -m hydra.sweep.dir=<folder>"),
)
_INDENT = " " * 6
_COLUMN = 32  # where sentences begin
_LEAST_SENTENCE = 24  # cells; in a terminal too narrow for both columns
_MOST_COLUMNS = 132  # longer lines are hard to read
# Sections that a command has no use for; they are left out of its page.
_UNUSED = {
    "train": (),
    "refine": ("tuning", "probes", "logger"),
    "evaluate": ("data", "refine", "tuning", "sft", "probes"),
}


def show_help(command: str, console: Console | None = None) -> None:
    """Prints the help page of `train`, `refine` or `evaluate`; long on purpose, pipe it through less."""
    console, started = console or SafeConsole(highlight=False), command_line(command)
    width = _width(console)
    console.print(f"[bold]{fill(_SUMMARY[command], width)}[/]\n\n    {started} key=value group=choice …\n")
    console.print("[bold]Examples[/]")
    for example, meaning in _EXAMPLES[command]:
        example = example.replace(f"python {command}.py", started)
        meaning = meaning.replace("{compare}", script_name("compare"))
        below = fill(meaning, width, initial_indent=_INDENT, subsequent_indent=_INDENT)
        console.print(Text(f"  {example}", style="cyan"), Text(below), sep="\n", soft_wrap=True)
    console.print()
    table = [(f"{group}={default or 'null'}", ", ".join(choices(group))) for group, default in groups(command).items()]
    _print(console, "Groups: default and choices (conf/<group>/<choice>.yaml)", table)
    keys_title = fill("Keys (schema defaults; a group's choice may set others: --cfg job shows the composed config)", width)
    console.print(keys_title.replace("Keys", "[bold]Keys[/]", 1))
    section = None
    rows: list[tuple[str, str]] = []
    found = members()
    for key, known in keys().items():
        if key.partition(".")[0] in _UNUSED[command]:
            continue
        if section is not None and section != key.rpartition(".")[0]:
            _print(console, None, rows)
            rows = []
        section = key.rpartition(".")[0]
        default = _default(schema.defaults(), key)
        rows.append((f"{key}={default}", f"{known.facts['help']} — {schema.expected(key, known, found)}"))
    _print(console, None, rows)
    _print(console, "Flags", _FLAGS)
    console.print(f"Config files: {escape(str(CONF))}", soft_wrap=True)


def _default(values: dict, key: str) -> str:
    value = values
    for part in key.split("."):
        value = value[part]
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _width(console: Console) -> int:
    return min(console.width, _MOST_COLUMNS)


def _print(console: Console, title: str | None, rows: list[tuple[str, str]] | tuple[tuple[str, str], ...]) -> None:
    """Prints entries with their sentences beside them; below them where an entry is longer than its column, as man pages do.

    An entry is never broken, so that it can be searched for and copied.
    """
    if title:
        console.print(Text(title, "bold"), soft_wrap=True)
    indent = " " * _COLUMN
    for entry, sentence in rows:
        lines = wrap(sentence, max(_width(console) - _COLUMN, _LEAST_SENTENCE), break_on_hyphens=False, break_long_words=False)
        left = Text(f"  {entry}", "cyan")
        if len(left) + 2 <= _COLUMN and lines:
            left = Text.assemble(left, " " * (_COLUMN - len(left)), lines.pop(0))
        console.print(Text("\n").join([left, *(Text(f"{indent}{line}") for line in lines)]), soft_wrap=True)
    console.print()
