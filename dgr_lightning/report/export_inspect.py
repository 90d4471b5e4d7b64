"""A run as logs of Inspect (inspect_ai), for `inspect view` and its data frames: one file a model and task.

Format: EvalLog, version 2, as JSON; fields as in `inspect_ai/log/_log.py` of inspect_ai 0.3.285
(https://inspect.aisi.org.uk/reference/inspect_ai.log.html), names of files as in its `_util/log_layout.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dgr_lightning.engines.engine import LENGTH
from dgr_lightning.evaluation.samples import Sample
from dgr_lightning.files import write_pieces
from dgr_lightning.hashes import content_hash
from dgr_lightning.report.exported_run import ExportedRun, Measured
from dgr_lightning.report.samples import shown, verdicts_in
from dgr_lightning.tasks.metrics import REASONING

VERSION = 2

_IN_NAMES = str.maketrans("_/:+", "----")
_REDUCER = "mean"
_METADATA = ("kind", "category", "attack", "request", "prefill", "thinking_capped")
_SCORE_METADATA = ("outcome", "boxed", "grader")


def export(run: ExportedRun, out: Path) -> list[Path]:
    """Writes the logs into a folder and returns their paths."""
    files = []
    for subject in run.subjects:
        for measured in run.measured(subject):
            log = _log(run, subject, measured)
            parts = (log["eval"][name].translate(_IN_NAMES) for name in ("created", "task", "task_id"))
            files.append(out / f"{'_'.join(parts)}.json")
            write_pieces(files[-1], _pieces(log, measured, run))
    return files


def _pieces(log: dict[str, Any], measured: Measured, run: ExportedRun) -> Iterator[str]:
    """Yields the JSON of a log; its samples stand last, so that readers of the head need not read them."""
    yield json.dumps(log, indent=2, ensure_ascii=False, allow_nan=False).removesuffix("\n}") + ',\n  "samples": ['
    model, before = log["eval"]["model"], "\n"
    for row in measured.rows():
        yield before + json.dumps(_sample(row, measured, model, run.system_prompt), ensure_ascii=False, allow_nan=False)
        before = ",\n"
    yield "\n  ]\n}\n"


def _log(run: ExportedRun, subject: str, measured: Measured) -> dict[str, Any]:
    """Returns a log without its samples."""
    created = run.finished.isoformat()
    run_hash, model = run.summary["config_hash"], run.model_name(subject)
    tokens, rows, judged = 0, 0, 0
    ids: dict[str, None] = {}
    for row in measured.rows():
        tokens, rows, judged = tokens + row["num_tokens"], rows + 1, judged + (row[measured.kind.verdict] is not None)
        ids[row["id"]] = None
    settings = measured.settings
    spec = {
        "eval_id": _id("eval", run_hash, subject, measured.task),
        "run_id": _id("run", run_hash),
        "created": created,
        "task": measured.task,
        "task_id": _id("task", run_hash, subject, measured.task),
        "task_version": 0,
        "task_args": {},
        "task_attribs": {},
        "dataset": {"name": measured.task, "samples": len(ids), "sample_ids": list(ids), "shuffled": False},
        "model": model,
        "model_generate_config": _generate_config(measured),
        "model_args": {},
        "config": {"epochs": settings.get("samples", 1), "epochs_reducer": [_REDUCER], "limit": settings.get("limit")},
        "packages": dict(run.summary["versions"]),
        "metadata": {"run": run_hash, "subject": subject, "kind": measured.kind.name},
        "scorers": [{"name": measured.scorer, "metrics": [{"name": name} for name in measured.values()]}],
    }
    usage = {"input_tokens": 0, "output_tokens": tokens, "total_tokens": tokens}
    score = {
        "name": measured.scorer,
        "scorer": measured.scorer,
        "reducer": _REDUCER,
        "scored_samples": judged,
        "unscored_samples": rows - judged,
        "params": {},
        "metrics": _metrics(measured),
    }
    shares = [{"sample_id": id_, "value": share} for id_, share in measured.shares.items()]
    return {
        "version": VERSION,
        "status": "success",
        "eval": spec,
        "plan": {
            "name": "plan",
            "steps": [{"solver": "generate", "params": {}, "params_passed": {}}],
            "config": _generate_config(measured),
        },
        "results": {"total_samples": rows, "completed_samples": rows, "scores": [score]},
        "stats": {"started_at": created, "completed_at": created, "model_usage": {model: usage}},
        "reductions": [{"scorer": measured.scorer, "reducer": _REDUCER, "samples": shares}],
    }


def _metrics(measured: Measured) -> dict[str, Any]:
    """Returns the metrics: that of the kind, its standard error, then all others, each with its interval."""
    metrics = {}
    for name, value in measured.values().items():
        estimate = measured.estimates[name]
        metrics[name] = {"name": name, "value": value, "params": {}, "metadata": {"interval": 0.95, **estimate}}
        if name == measured.kind.metric and measured.stderr is not None:
            metrics["stderr"] = {"name": "stderr", "value": measured.stderr, "params": {}, "metadata": {"of": name}}
    return metrics


def _generate_config(measured: Measured) -> dict[str, Any]:
    settings = measured.settings
    named = {"max_tokens": "max_new_tokens", "temperature": "temperature", "top_p": "top_p", "top_k": "top_k"}
    config = {name: settings[own] for name, own in named.items() if own in settings}
    return {name: value for name, value in config.items() if name != "top_k" or value}  # 0: from all


def _sample(row: Sample, measured: Measured, model: str, system_prompt: str | None) -> dict[str, Any]:
    output = shown(row, measured.side.formats)
    content: str | list[dict[str, Any]] = output.answer or ""
    if output.trace:
        content = [{"type": "reasoning", "reasoning": output.trace}, {"type": "text", "text": output.answer or ""}]
    # Names of messages are derived, or readers would invent new ones with every look.
    ids = [_id(role, model, measured.task, row["id"], row["sample"]) for role in ("system", "user", "assistant")]
    asked = [{"id": ids[1], "role": "user", "content": row["prompt"], "source": "input"}]
    if system_prompt is not None:
        asked.insert(0, {"id": ids[0], "role": "system", "content": system_prompt, "source": "input"})
    reply = {"id": ids[2], "role": "assistant", "content": content, "source": "generate", "model": model}
    usage = {"input_tokens": 0, "output_tokens": row["num_tokens"], "total_tokens": row["num_tokens"]}
    stop = "max_tokens" if row["finish_reason"] == LENGTH else "stop"
    score = _score(row, measured, output.facts)
    return {
        "id": row["id"],
        "epoch": row["sample"] + 1,
        "input": row["prompt"],
        "target": row.get("gold", ""),
        "messages": [*asked, reply],
        "output": {
            "model": model,
            "choices": [{"message": reply, "stop_reason": stop}],
            "completion": output.answer or "",
            "usage": usage,
        },
        "scores": {} if score is None else {measured.scorer: score},
        "metadata": {name: row[name] for name in _METADATA if name in row} | {"flags": output.flags},
        "model_usage": {model: usage},
        "uuid": _id("sample", model, measured.task, row["id"], row["sample"]),
    }


def _score(row: Sample, measured: Measured, facts: list[str]) -> dict[str, Any] | None:
    """Returns what an output counts as; None where no judge could say."""
    verdict = row[measured.kind.verdict]
    if verdict is None:
        return None
    # A refusal is no success of every task, so it is no C: 1 is what the rate counts.
    value = ("C" if verdict else "I") if measured.kind is REASONING else int(verdict)
    metadata = {name: row[name] for name in _SCORE_METADATA if name in row}
    if judged := verdicts_in(row):
        metadata["judged"] = [dict(said) for said in judged]
    return {"value": value, "answer": row.get("final"), "explanation": "; ".join(facts), "metadata": metadata}


def _id(*parts: Any) -> str:
    """Returns 22 letters and digits, as long as the names that Inspect invents, but the same in every export."""
    return (content_hash(*parts) + content_hash("id", *parts))[:22]
