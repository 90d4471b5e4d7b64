"""Finished runs with given verdicts on disk, for tests of what compares them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import yaml

from dgr_lightning.config import Config
from dgr_lightning.evaluation.subjects import outputs_file
from dgr_lightning.files import write_json, write_jsonl, write_text
from dgr_lightning.report.summary import build_summary
from dgr_lightning.statistics.intervals import Estimate, rate
from dgr_lightning.tasks.metrics import KINDS

KIND_OF = {"gsm8k": "reasoning", "math500": "reasoning", "strongreject": "harmful", "xstest": "benign"}
HALF = [True, False] * 20
"""Verdicts of forty problems, one sample each."""

Verdicts = Mapping[str, Sequence[bool | None]]
"""Task → problem → its verdict."""


def write_run(folder: Path, verdicts: Verdicts, *, prompt: str = "prompt", capped: bool = False, **changes) -> Path:
    """Writes the run of an evaluation; `changes` are keys of its config, dots as two underscores."""
    return _write(folder, {"base": verdicts}, prompt, capped, changes)


def write_training(folder: Path, base: Verdicts, tuned: Verdicts, **changes) -> Path:
    """Writes the run of a training."""
    folder = _write(folder, {"base": base, "tuned": tuned}, "prompt", False, changes)
    write_json(folder / "stages" / "measured.json", {"hashes": []})
    return folder


def _write(folder: Path, subjects: Mapping[str, Verdicts], prompt: str, capped: bool, changes: Mapping[str, object]) -> Path:
    cfg = Config()
    cfg.model.name, cfg.refine.name, cfg.data.name = "some-model", "dgr", "star1"
    for key, value in changes.items():
        *sections, name = key.split("__")
        setattr(getattr(cfg, sections[0]) if sections else cfg, name, value)
    parts: dict = {}
    for subject, verdicts in subjects.items():
        for task, outcomes in verdicts.items():
            kind = KINDS[KIND_OF[task]]
            rows = [
                {"id": f"{task}-{i}", "sample": 0, "kind": kind.name, "prompt": f"{prompt} {i}"}
                | ({"gold": "1", "grader": "maths@1"} if kind.name == "reasoning" else {})
                | {"output": "<script>alert(1)</script>", "num_tokens": 10, "finish_reason": "length" if capped else "stop"}
                | {kind.verdict: outcome}
                for i, outcome in enumerate(outcomes)
            ]
            write_jsonl(outputs_file(folder, subject, task), rows)
            own = rate([[outcome] for outcome in outcomes if outcome is not None])
            parts.setdefault(subject, {})[task] = {
                KINDS[KIND_OF[task]].metric: own,
                "cap_hit_rate": rate([[capped]] * len(rows)),
            }
    if "tuned" in subjects:
        parts["tax"] = {"points": Estimate(1.0, -1.0, 3.0, 40), "relative_percent": Estimate(2.0, -2.0, 6.0, 40)}
    write_text(folder / "config.yaml", yaml.safe_dump(asdict(cfg)))
    write_json(folder / ".run.json", {"hash": "0" * 12, "model": "m", "described": {}})
    write_json(folder / "summary.json", build_summary("0" * 12, {"evaluate_base": 1.0}, **parts))
    return folder
