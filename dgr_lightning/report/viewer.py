"""`outputs.html`: every output of a run, or of two subjects side by side, to search and to filter. One file, no network.

The outputs are untrusted text, some of them harmful. They lie in the page as compressed data, which the page's own script
unpacks when a sample is opened and puts into it as text, never as markup; a content security policy allows that one script, by
its hash, and nothing from outside. What belongs to a harmful request stays folded until a reader opens it.

A run of some thousand outputs is a few megabytes: an index of all samples is read at once, texts in packs of `PACK`.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dgr_lightning.files import write_text
from dgr_lightning.report import svg
from dgr_lightning.report.samples import Side, shown, sides_of
from dgr_lightning.report.summary import Summary
from dgr_lightning.visible_text import visible

OUTPUTS = "outputs.html"
"""Name of the file in a run directory."""

PACK = 50
"""Samples whose texts are compressed together: what is unpacked when one of them is opened."""

_SHOWN_CHARACTERS = 60_000
_LEVEL = 3  # of compression: three times as fast as the default, and a tenth larger

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{}'"


def write_outputs(run_dir: Path, summary: Summary) -> None:
    """Writes `outputs.html` into a run directory, where its models were evaluated; `summary` is of the run."""
    sides = sides_of(run_dir, summary)
    if sides:
        write_viewer(run_dir / OUTPUTS, run_dir.resolve().name, sides)


def write_viewer(path: Path, title: str, sides: Sequence[Side]) -> Path:
    """Writes the page and returns its path.

    Args:
        path: of the HTML file.
        title: of the page.
        sides: the subjects; samples are matched by task, id and number of the sample.
    """
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    script = (Path(__file__).parent / "viewer.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    samples: list[dict[str, Any]] = []
    packs = list(_packs(sides, samples))
    text = environment.get_template("viewer.html.jinja").render(
        title=title,
        policy=_POLICY.format(digest),
        style=Markup(svg.palette_style()),
        script=Markup(script),
        index=Markup(_inert({"sides": [side.label for side in sides], "pack": PACK, "samples": samples})),
        packs=packs,
    )
    write_text(path, text)
    return path


def _packs(sides: Sequence[Side], samples: list[dict[str, Any]]) -> Iterator[str]:
    """Yields the texts, `PACK` samples at a time, compressed and in base64; adds the samples to the index."""
    texts: list[dict[str, Any]] = []
    for task in dict.fromkeys(task for side in sides for task in side.tasks):
        for entry, text in _matched(task, sides):
            samples.append(entry)
            texts.append(text)
            if len(texts) == PACK:
                yield _packed(texts)
                texts = []
    if texts:
        yield _packed(texts)


def _matched(task: str, sides: Sequence[Side]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yields the samples of a task: an entry of the index, and the texts.

    An entry has the verdict and the flags of each side, None for one that lacks the sample.
    """
    by_side = [{(row["id"], row["sample"]): row for row in side.rows(task)} for side in sides]
    for key in dict.fromkeys(key for rows in by_side for key in rows):
        found = [rows.get(key) for rows in by_side]
        parts = [row and shown(row, side.formats) for row, side in zip(found, sides, strict=True)]
        first = next(row for row in found if row is not None)
        verdicts, flags = ([part and getattr(part, name) for part in parts] for name in ("verdict", "flags"))
        entry = {"task": task, "id": first["id"], "sample": first["sample"], "kind": first["kind"]}
        prompts = [row and row["prompt"] for row in found]
        # One prompt for both, as a rule; two runs may have been asked in other words.
        texts = {"prompts": prompts if len(set(filter(None, prompts))) > 1 else [first["prompt"]], "gold": first.get("gold")}
        yield (
            entry | {"verdicts": verdicts, "flags": flags},
            _plain(texts | {"parts": [part and asdict(part) for part in parts]}),
        )


def _plain(value: Any) -> Any:
    """Returns JSON-able texts with visible control characters, very long ones without their middle."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if not isinstance(value, str):
        return value
    if len(value) > _SHOWN_CHARACTERS:
        half = _SHOWN_CHARACTERS // 2
        value = f"{value[:half]}\n[… {len(value) - 2 * half:,} characters left out …]\n{value[-half:]}"
    return visible(value)


def _packed(texts: list[dict[str, Any]]) -> str:
    # mtime: the same outputs give the same page.
    return base64.b64encode(gzip.compress(json.dumps(texts, ensure_ascii=False).encode(), _LEVEL, mtime=0)).decode()


def _inert(value: Any) -> str:
    """Returns JSON that cannot end the element in which it stands."""
    return json.dumps(value).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
