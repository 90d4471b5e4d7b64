"""What was probably meant by an argument that is no override, and what to write instead: a message for every frequent slip.

A guess is put into the message, for the user to paste; no command line is changed by one. The only text that is taken as it
stands although Hydra's grammar cannot read it is a plain value of a key that takes text, such as a path with letters beyond
ASCII: it can mean nothing else.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args, get_origin

from dgr_lightning.config.keys import keys
from dgr_lightning.errors import UserError
from dgr_lightning.files import exists, local_path
from dgr_lightning.json_text import why_bad

_DIRECTORIES = ("hydra.run.dir", "hydra.sweep.dir")
# With any of these a value may be a list, a mapping, a function, an interpolation or several values.
_STRUCTURE = re.compile(r"[,=\[\]{}()$\"'\\]")
_TYPOGRAPHIC = str.maketrans("“”„«»‘’‚", '"""""\'\'\'')
# A word of a list or a mapping that holds what the grammar has no letter for.
_FOREIGN_WORD = re.compile(r"[^\s,\[\]{}\"':]*[^\x00-\x7f][^\s,\[\]{}\"']*")
# Names that other training programs use for the same.
_ELSEWHERE = {
    "batch_size": "sft.batch_size",
    "bf16": "trainer.precision",
    "dataset": "data",
    "dataset_name": "data.hub_id",
    "gpus": "trainer.devices",
    "learning_rate": "sft.lr",
    "lora_r": "tuning.rank",
    "max_seq_len": "sft.max_length",
    "max_seq_length": "sft.max_length",
    "model_name_or_path": "model.path",
    "num_epochs": "sft.epochs",
    "num_gpus": "trainer.devices",
    "num_train_epochs": "sft.epochs",
    "output_dir": "hydra.run.dir",
    "per_device_train_batch_size": "sft.batch_size",
    "strategy": "refine",
}


def takes_text(key: str) -> bool:
    """Whether a key's value is text: a path, a name; or an entry of a mapping of texts, such as evaluation.path.gsm8k."""
    if key in _DIRECTORIES:
        return True
    known = keys().get(key)
    if known is not None:
        return str in (known.hint, *get_args(known.hint)) and get_origin(known.hint) not in (list, dict)
    parent = keys().get(key.rpartition(".")[0])
    return parent is not None and get_origin(parent.hint) is dict


def parse(text: str, parser: Any, *, sweep: bool) -> Any:
    """Returns an override as Hydra's parser reads it.

    Args:
        text: `key=value`.
        parser: Hydra's.
        sweep: whether -m was given.

    Raises:
        UserError: it cannot be read; the message ends with what to write.
    """
    from hydra.errors import HydraException

    try:
        return parser.parse_override(text)
    except (ValueError, RecursionError) as error:  # from reading a number of thousands of digits, or thousands of brackets
        raise UserError(f"{text}: cannot be read ({why_bad(error)}).") from error
    except HydraException as error:
        key, _, value = text.partition("=")
        if takes_text(key.lstrip("+")) and value == value.strip() and not _STRUCTURE.search(value.translate(_TYPOGRAPHIC)):
            with suppress(HydraException):  # it may be the key that cannot be read
                return parser.parse_override(f'{key}="{value}"')
        cause = str(error).partition("\n")[0].partition(" expecting {")[0]
        for meant in _readings(key, value, sweep=sweep):
            try:
                parser.parse_override(meant)
            except (HydraException, ValueError, RecursionError):
                continue
            raise UserError(f"{text}: cannot be read ({cause}). Write {shlex.quote(meant)}.") from error
        raise UserError(
            f"{text}: cannot be read ({cause}). Text with spaces or any of ,=:()[]{{}} needs quotes inside quotes, "
            "such as 'logger.project=\"a, b\"'."
        ) from error


def _readings(key: str, value: str, *, sweep: bool) -> Iterator[str]:
    """Yields what an unreadable override may have meant, the likeliest first."""
    straight = value.translate(_TYPOGRAPHIC)
    if straight != value:
        yield f"{key}={straight}"
    if value.startswith("="):
        yield f"{key}={value.lstrip('=')}"
    if value.endswith(","):
        yield f"{key}={value.rstrip(',')}"
    if (key, value) != (key.strip(), value.strip()):
        yield f"{key.strip()}={value.strip()}"
    if re.search(r"[\[{]", value):
        yield f"{key}={_FOREIGN_WORD.sub(lambda word: quoted(word[0]), value)}"
    if takes_text(key.strip().lstrip("+")):
        parts = value.split(",") if sweep else [value]
        yield f"{key.strip()}={','.join(quoted(part.strip()) for part in parts)}"


def quoted(text: str) -> str:
    """Returns a text in quotes, as Hydra reads any text."""
    return '"{}"'.format(text.replace('"', '\\"'))


def no_override(arguments: Sequence[str], index: int, command: str, choices: Mapping[str, Iterable[str]]) -> str:
    """Returns the message on an argument without an equals sign.

    Args:
        arguments: of the command line, without flags.
        index: of the one that is none.
        command: `train`, `refine` or `evaluate`.
        choices: group → its choices.
    """
    text = arguments[index]
    before, after = arguments[index - 1] if index else "", arguments[index + 1] if index + 1 < len(arguments) else ""
    key, _, rest = text.partition(":")
    known = {*keys(), *choices, *_DIRECTORIES}
    meant = None
    if before.endswith("="):
        meant = before + text
    elif after.startswith("="):
        value = after[1:] or (arguments[index + 2] if index + 2 < len(arguments) else "…")
        meant = f"{text}={value}"
    elif text in known and after and "=" not in after:
        meant = f"{text}={after}"
    elif rest and key in known:
        meant = f"{key}={rest.strip()}"
    elif groups := [group for group, names in choices.items() if text in names]:
        meant = " or ".join(f"{group}={text}" for group in groups)
    elif exists(local_path(text)):
        key = "model.path" if command == "evaluate" or (local_path(text) / "config.json").is_file() else "data.path"
        meant = f"{key}={text}"
    if meant is None:
        return f"{text}: write key=value, such as sft.lr=1e-3 or data=star1."
    spaces = " (no spaces around =)" if before.endswith("=") or after.startswith("=") else ""
    return f"{text}: settings are key=value. Write {meant}{spaces}."


def no_flag(flag: str, arguments: Sequence[str], groups: Iterable[str]) -> str:
    """Returns the message on a flag that does not exist, which is a setting where its name is one.

    Args:
        flag: such as `--lr` or `--lr=1e-3`.
        arguments: all of the command line.
        groups: the config groups.
    """
    name, _, value = flag.lstrip("-").replace("-", "_").partition("=")
    value = flag.partition("=")[2]
    if not value:
        rest = arguments[arguments.index(flag) + 1 :]
        value = rest[0] if rest and "=" not in rest[0] and not rest[0].startswith("--") else "…"
    meant = " or ".join(f"{key}={value}" for key in keys_named(name, groups))
    written = f"Write {meant}." if meant else "--help lists them."
    return f"{flag}: no such flag. Settings are written key=value, without dashes. {written}"


def keys_named(name: str, groups: Iterable[str]) -> list[str]:
    """Returns the keys that a name may stand for: the key or group itself, those that end in it, or what others call so."""
    if name in _ELSEWHERE:
        return [_ELSEWHERE[name]]
    if name in keys() or name in groups:
        return [name]
    return [key for key in keys() if key.rpartition(".")[2] == name][:3]


def refuse_repeated(parsed: Sequence[Any]) -> None:
    """Raises a UserError where two overrides set the same key or group to different values."""
    first: dict[str, Any] = {}
    for override in parsed:
        other = first.setdefault(override.key_or_group, override)
        if other.input_line.lstrip("+") != override.input_line.lstrip("+"):
            key = override.key_or_group
            values = ",".join(text.partition("=")[2] for text in (other.input_line, override.input_line))
            raise UserError(
                f"{other.input_line} and {override.input_line}: {key} is given twice. Write one of them, or, to run each, "
                f"-m {key}={values}."
            )


def refuse_none(override: Any) -> None:
    """Raises a UserError where None is written for null: a key that takes text would take it as that text."""
    key, _, value = override.input_line.lstrip("+").partition("=")
    known = keys().get(key)
    if value == "None" and known is not None and type(None) in get_args(known.hint):
        raise UserError(f"{override.input_line}: null is written null here: {key}=null. (The text: '{key}=\"None\"'.)")


def other_choice(group: str, name: str, known: Sequence[str]) -> str:
    """Returns the sentence on what was meant by a choice that does not exist: a path, a hub id, other capitals; or nothing."""
    if group in ("model", "data"):
        if exists(local_path(name)) or re.search(r"^[~/.]|\.(jsonl?|csv|tsv|parquet)$", name):
            return f" For a {'folder' if group == 'model' else 'file'} of your own write {group}.path={name}."
        if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
            return f" For a {'model' if group == 'model' else 'data set'} on the hub write {group}.hub_id={name}."
    like = [choice for choice in known if choice.lower() == name.lower().replace("_", "-")]
    return f" Write {group}={like[0]}." if like else ""


def refuse_run(path: Path, key: str) -> None:
    """Raises a UserError where a path that should be a model's is the directory of a run, which has its model inside.

    Args:
        path: a folder, or nothing.
        key: that the user set.
    """
    if exists(path / "config.json") or not exists(path / ".run.json"):
        return
    named = f"{key}={path}"
    if (path / "stages" / "train.json").is_file() and (path / "model").is_dir():
        raise UserError(f"{named}: that is a run; its model is the folder model in it. Write {key}={path / 'model'}.")
    if (path / "metrics.csv").exists() or (path / "checkpoints").is_dir():
        raise UserError(
            f"{named}: that is a run whose training has not finished, so it has no model yet. Run its command again, which "
            f"continues it; then write {key}={path / 'model'}."
        )
    kind = "; its rows serve as data.path=" + str(path) if (path / "refined.jsonl").is_file() else ""
    raise UserError(f"{named}: that is a run without a model of its own{kind}. Write {key}=<Hugging Face folder>.")
