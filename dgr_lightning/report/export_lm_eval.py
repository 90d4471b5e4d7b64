"""A run in the layout of lm-evaluation-harness: `<model>/results_<date>.json` and `<model>/samples_<task>_<date>.jsonl`.

Format: that of lm_eval 0.4.13 (https://github.com/EleutherAI/lm-evaluation-harness), fields as in its `result_schema.py`, files
as in `loggers/evaluation_tracker.py`, hashes as in `evaluator.py`. A line is a problem, with the outputs to it as the repeats
of one request.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dgr_lightning.evaluation.samples import Sample
from dgr_lightning.files import write_json, write_jsonl
from dgr_lightning.report.exported_run import ExportedRun, Measured
from dgr_lightning.report.samples import shown
from dgr_lightning.tasks.metrics import REASONING

_LOWER_IS_BETTER = ("over_refusal_rate",)
_NO_ANSWER = "[invalid]"  # as the harness writes what its filters found no answer in


def export(run: ExportedRun, out: Path) -> list[Path]:
    """Writes results and samples of every model into folders of their own and returns the paths."""
    files = []
    date = run.finished.replace(tzinfo=None).isoformat().replace(":", "-")
    for subject in run.subjects:
        model = run.model_name(subject)
        folder = out / _folder_name(model)
        all_measured = run.measured(subject)
        task_hashes = {}
        for measured in all_measured:
            files.append(folder / f"samples_{measured.task}_{date}.jsonl")
            digest = hashlib.sha256()
            write_jsonl(files[-1], _lines(measured, digest))
            task_hashes[measured.task] = digest.hexdigest()
        files.append(folder / f"results_{date}.json")
        write_json(files[-1], _results(run, subject, model, all_measured) | {"task_hashes": task_hashes})
    return files


def _lines(measured: Measured, digest: Any) -> Iterator[dict[str, Any]]:
    """Yields the lines of a task and feeds their hashes to that of the task."""
    for number, rows in enumerate(measured.problems()):
        line = _line(number, rows, measured)
        digest.update("".join(line[name] for name in ("doc_hash", "prompt_hash", "target_hash")).encode())
        yield line


def _line(number: int, rows: Sequence[Sample], measured: Measured) -> dict[str, Any]:
    first, metric = rows[0], measured.kind.metric
    doc = {"id": first["id"], "kind": first["kind"], "category": first.get("category")}
    doc |= {"question": first.get("request", first["prompt"]), "answer": first.get("gold")}
    target = first.get("gold") or ""
    filtered = [_filtered(row, measured) for row in rows]
    return {
        "doc_id": number,
        "doc": doc,
        "target": target,
        "arguments": {"gen_args_0": {"arg_0": first["prompt"], "arg_1": _gen_kwargs(measured)}},
        "resps": [[row["output"] for row in rows]],
        "filtered_resps": filtered if len(filtered) == 1 else [filtered],
        "filter": _filter(measured),
        "metrics": [metric],
        "doc_hash": _hash(json.dumps(doc, indent=2, ensure_ascii=False)),
        "prompt_hash": _hash(first["prompt"]),
        "target_hash": _hash(target),
        metric: measured.shares.get(first["id"]),
    }


def _filter(measured: Measured) -> str:
    """Returns what the harness calls the way from a response to what is scored: the final answer, or all after the thought."""
    return "final-answer" if measured.kind is REASONING else "answer"


def _filtered(row: Sample, measured: Measured) -> str:
    answer = shown(row, measured.side.formats).answer
    found = row.get("final", answer)
    return _NO_ANSWER if found is None else str(found)


def _gen_kwargs(measured: Measured) -> dict[str, Any]:
    settings = measured.settings
    named = {"max_gen_toks": "max_new_tokens"} | {
        name: name for name in ("temperature", "top_p", "top_k", "repetition_penalty") if name in settings
    }
    return {"until": [], "do_sample": bool(settings.get("temperature"))} | {
        name: settings[own] for name, own in named.items() if own in settings
    }


def _results(run: ExportedRun, subject: str, model: str, all_measured: Sequence[Measured]) -> dict[str, Any]:
    """Returns the content of results_<date>.json, but for the hashes of tasks."""
    system = run.system_prompt
    evaluation = run.config["evaluation"]
    return {
        "results": {measured.task: _task_results(measured) for measured in all_measured},
        "group_subtasks": {measured.task: [] for measured in all_measured},
        "configs": {measured.task: _task_config(measured) for measured in all_measured},
        "versions": {measured.task: None for measured in all_measured},
        "n-shot": {measured.task: 0 for measured in all_measured},
        "higher_is_better": {
            measured.task: {measured.kind.metric: measured.kind.metric not in _LOWER_IS_BETTER} for measured in all_measured
        },
        # How many problems the data set has beyond these, the run's outputs do not say.
        "n-samples": {
            measured.task: {"original": _number(measured), "effective": _number(measured)} for measured in all_measured
        },
        "config": {
            "model": "dgr-lightning",
            "model_args": f"pretrained={model}",
            "limit": evaluation.get("limit"),
            "random_seed": evaluation.get("seed"),
            "gen_kwargs": None,
        },
        "git_hash": None,
        "date": run.finished.timestamp(),
        "transformers_version": run.summary["versions"].get("transformers"),
        "model_source": "dgr-lightning",
        "model_name": model,
        "model_name_sanitized": _folder_name(model),
        "system_instruction": system,
        "system_instruction_sha": None if system is None else _hash(system),
        "fewshot_as_multiturn": False,
        "chat_template": None,
        "chat_template_sha": None,
        "total_evaluation_time_seconds": str(run.summary["wall_seconds"].get(f"evaluate_{subject}", "")),
    }


def _task_results(measured: Measured) -> dict[str, Any]:
    filter_, metric = _filter(measured), measured.kind.metric
    found: dict[str, Any] = {"name": measured.task, "alias": measured.task, "sample_len": _number(measured)}
    for name, value in measured.values().items():
        found[f"{name},{filter_}"] = value
        if name == metric:
            found[f"{name}_stderr,{filter_}"] = "N/A" if measured.stderr is None else measured.stderr
    return found


def _task_config(measured: Measured) -> dict[str, Any]:
    return {
        "task": measured.task,
        "output_type": "generate_until",
        "num_fewshot": 0,
        "repeats": measured.settings.get("samples", 1),
        "generation_kwargs": _gen_kwargs(measured),
        "metric_list": [{"metric": measured.kind.metric, "aggregation": "mean"}],
        "metadata": {"scorer": measured.scorer},
    }


def _folder_name(model: str) -> str:
    """Returns a model's name as the harness makes a folder of it."""
    return re.sub(r"[\"<>:/|\\?*\[\]]+", "__", model)


def _number(measured: Measured) -> int:
    return sum(1 for _ in measured.problems())


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
