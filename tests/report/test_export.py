"""Exports of a run: every field that other programs' readers need, with values that agree with the run's own."""

import hashlib
import json
import os
import statistics

import pytest
import yaml

from dgr_lightning.errors import UserError
from dgr_lightning.files import write_json, write_jsonl
from dgr_lightning.report import export
from tests.helpers.finished_run import estimates, make_summary, write_run

FINISHED = 1_790_000_000  # 2026-09-21T14:13:20 UTC

NUMBER, TEXTS = (int, float), (str, list)
INSPECT = {  # inspect_ai 0.3.285, log/_log.py, model/_model_output.py, scorer/_metric.py: fields without a default, and ours
    "version": int,
    "status": str,
    "eval.eval_id": str,
    "eval.run_id": str,
    "eval.created": str,
    "eval.task": str,
    "eval.task_id": str,
    "eval.dataset.name": str,
    "eval.dataset.samples": int,
    "eval.dataset.sample_ids": list,
    "eval.model": str,
    "eval.model_generate_config.max_tokens": int,
    "eval.config.epochs": int,
    "eval.packages": dict,
    "plan.name": str,
    "plan.steps.0.solver": str,
    "results.total_samples": int,
    "results.completed_samples": int,
    "results.scores.0.name": str,
    "results.scores.0.scorer": str,
    "results.scores.0.metrics.*.name": str,
    "results.scores.0.metrics.*.value": NUMBER,
    "stats.started_at": str,
    "stats.completed_at": str,
    "stats.model_usage.*.output_tokens": int,
    "reductions.0.scorer": str,
    "reductions.0.samples.0.sample_id": str,
    "reductions.0.samples.0.value": NUMBER,
    "samples.*.id": str,
    "samples.*.epoch": int,
    "samples.*.input": str,
    "samples.*.target": str,
    "samples.*.messages.0.role": str,
    "samples.*.messages.0.content": str,
    "samples.*.messages.1.role": str,
    "samples.*.messages.1.content": TEXTS,
    "samples.*.output.model": str,
    "samples.*.output.choices.0.message.content": TEXTS,
    "samples.*.output.choices.0.stop_reason": str,
    "samples.*.output.usage.total_tokens": int,
    "samples.*.scores.*.value": (str, *NUMBER),
    "samples.*.scores.*.explanation": str,
    "samples.*.scores.*.metadata": dict,
}
RESULTS = {  # lm_eval 0.4.13, result_schema.py: EvalResults
    "results.*.name": str,
    "results.*.alias": str,
    "results.*.sample_len": int,
    "group_subtasks.*": list,
    "configs.*.task": str,
    "versions": dict,
    "n-shot.*": int,
    "higher_is_better.*.*": bool,
    "n-samples.*.original": int,
    "n-samples.*.effective": int,
    "config.model": str,
    "date": float,
    "model_source": str,
    "model_name": str,
    "model_name_sanitized": str,
    "fewshot_as_multiturn": bool,
    "task_hashes.*": str,
    "total_evaluation_time_seconds": str,
}
LINE = {  # lm_eval 0.4.13, result_schema.py: SampleResult
    "doc_id": int,
    "doc": dict,
    "target": str,
    "arguments.gen_args_0.arg_0": str,
    "arguments.gen_args_0.arg_1.max_gen_toks": int,
    "resps.0.0": str,
    "filtered_resps.0": TEXTS,
    "filter": str,
    "metrics.0": str,
    "doc_hash": str,
    "prompt_hash": str,
    "target_hash": str,
}


def check(value, fields):
    """Checks that every path of a table leads to values of its type; `*` stands for every key or index."""
    for path, kind in fields.items():
        found = [value]
        for key in path.split("."):
            children = [dict(enumerate(one)) if isinstance(one, list) else one for one in found]
            found = [
                child
                for one in children
                for child in (one.values() if key == "*" else [one[int(key) if key.isdigit() else key]])
            ]
        assert found and all(isinstance(one, kind) for one in found), path


@pytest.fixture
def run(tmp_path):
    """A finished training; its tuned model thinks, on gsm8k with two samples a problem, of which the second is cut off."""
    folder = write_run(tmp_path / "run")
    rows = [
        {
            "id": f"gsm8k-{index}",
            "sample": sample,
            "kind": "reasoning",
            "prompt": "how much ?",
            "gold": "4",
            "output": "a thought" if sample else "a thought</think>\n\nso it is \\boxed{4}",
            "num_tokens": 10 + sample,
            "finish_reason": "length" if sample else "stop",
            "correct": not sample and index < 2,
            "outcome": "no_answer" if sample else "right",
            "boxed": None if sample else True,
            "final": None if sample else "4",
            "grader": "maths@2",
        }
        for index in range(4)
        for sample in range(2)
    ]
    write_jsonl(folder / "evaluation" / "tuned" / "gsm8k.jsonl", rows)
    write_json(folder / "summary.json", make_summary())
    os.utime(folder / "summary.json", (FINISHED, FINISHED))
    return folder


def logs(run, out):
    files = export.export_run(run, "inspect", out)
    found = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    return {(log["eval"]["model"], log["eval"]["task"]): log for log in found}, files


def test_logs_of_inspect_have_every_field_of_its_schema(run, tmp_path):
    found, files = logs(run, tmp_path / "logs")
    tasks = ("gsm8k", "strongreject", "xstest")
    assert set(found) == {(model, task) for model in ("micro-base", "micro-tuned") for task in tasks}
    for log, file in zip(found.values(), files, strict=True):
        check(log, INSPECT)
        eval_ = log["eval"]
        assert (log["version"], log["status"]) == (2, "success")
        assert file.name == f"2026-09-21T14-13-20-00-00_{eval_['task']}_{eval_['task_id']}.json"
        assert list(log)[-1] == "samples"  # readers of the head stop there
    assert len({log["eval"]["task_id"] for log in found.values()}) == len({file.name for file in files}) == 6


def test_a_sample_of_inspect_says_what_the_model_thought_and_what_it_counts_as(run, tmp_path):
    found, _ = logs(run, tmp_path / "logs")
    log = found["micro-tuned", "gsm8k"]
    whole, cut = log["samples"][:2]
    assert (whole["id"], whole["epoch"], cut["id"], cut["epoch"]) == ("gsm8k-0", 1, "gsm8k-0", 2)
    parts = [{"type": "reasoning", "reasoning": "a thought"}, {"type": "text", "text": "so it is \\boxed{4}"}]
    assert whole["messages"][1]["content"] == whole["output"]["choices"][0]["message"]["content"] == parts
    assert whole["target"] == "4" and whole["scores"]["maths@2"]["answer"] == "4"
    assert [one["output"]["choices"][0]["stop_reason"] for one in (whole, cut)] == ["stop", "max_tokens"]
    assert [one["scores"]["maths@2"]["value"] for one in log["samples"]] == ["C", "I", "C", "I", "I", "I", "I", "I"]
    assert [one["value"] for one in log["reductions"][0]["samples"]] == [0.5, 0.5, 0, 0]
    refusals = found["micro-base", "strongreject"]["samples"]
    assert [next(iter(one["scores"].values()))["value"] for one in refusals] == [0, 1, 0, 0]


def test_metrics_are_those_of_the_summary_and_errors_are_clustered(run, tmp_path):
    found, _ = logs(run, tmp_path / "logs")
    metrics = found["micro-tuned", "gsm8k"]["results"]["scores"][0]["metrics"]
    assert next(iter(metrics)) == "accuracy" and metrics["accuracy"]["value"] == estimates(0.78, 1.0)["gsm8k"]["accuracy"].value
    assert metrics["stderr"]["value"] == pytest.approx(statistics.stdev([0.5, 0.5, 0, 0]) / 2)
    results = json.loads((export.export_run(run, "lm-eval", tmp_path / "lm")[-1]).read_text(encoding="utf-8"))["results"][
        "gsm8k"
    ]
    assert results["accuracy,final-answer"] == metrics["accuracy"]["value"]
    assert results["accuracy_stderr,final-answer"] == metrics["stderr"]["value"]


def test_the_layout_of_the_harness_with_its_hashes(run, tmp_path):
    files = export.export_run(run, "lm-eval", tmp_path / "lm")
    names = {file.relative_to(tmp_path / "lm").as_posix() for file in files}
    date = "2026-09-21T14-13-20"
    tasks = [f"samples_{task}_{date}.jsonl" for task in ("gsm8k", "strongreject", "xstest")]
    assert names == {f"micro-{one}/{name}" for one in ("base", "tuned") for name in (*tasks, f"results_{date}.json")}
    results = json.loads(files[-1].read_text(encoding="utf-8"))
    check(results, RESULTS)
    assert results["higher_is_better"]["xstest"] == {"over_refusal_rate": False}
    lines = [json.loads(line) for line in (files[-1].parent / tasks[0]).read_text(encoding="utf-8").splitlines()]
    for number, line in enumerate(lines):
        check(line, LINE)
        assert line["doc_id"] == number and len(line["resps"][0]) == 2
        assert line["doc_hash"] == sha(json.dumps(line["doc"], indent=2, ensure_ascii=False))
        assert line["prompt_hash"] == sha("how much ?") and line["target_hash"] == sha("4")
        assert line["filtered_resps"] == [["4", "[invalid]"]]
    assert [line["accuracy"] for line in lines] == [0.5, 0.5, 0, 0]
    hashes = (line["doc_hash"] + line["prompt_hash"] + line["target_hash"] for line in lines)
    assert results["task_hashes"]["gsm8k"] == sha("".join(hashes))


@pytest.mark.parametrize("format_", ["inspect", "lm-eval"])
def test_two_exports_of_a_run_are_the_same(run, tmp_path, format_):
    first, second = (export.export_run(run, format_, tmp_path / name) for name in ("first", "second"))
    assert [file.name for file in first] == [file.name for file in second]
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]


def test_how_a_task_was_asked_is_said_of_that_task(run, tmp_path):
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    config["evaluation"]["by_kind"] = {"harmful": {"temperature": 0.0, "max_new_tokens": 64}}
    config["evaluation"]["by_task"] = {"gsm8k": {"samples": 2}}
    config["model"]["system_prompt"] = "Be brief."
    (run / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    found, _ = logs(run, tmp_path / "logs")
    configs = {task: found["micro-base", task]["plan"]["config"] for task in ("gsm8k", "strongreject")}
    assert (configs["strongreject"]["max_tokens"], configs["gsm8k"]["max_tokens"]) == (64, 32768)
    assert [found["micro-base", task]["eval"]["config"]["epochs"] for task in configs] == [2, 1]
    system, user, _ = found["micro-base", "gsm8k"]["samples"][0]["messages"]
    assert (system["role"], system["content"], user["role"]) == ("system", "Be brief.", "user")
    file = export.export_run(run, "lm-eval", tmp_path / "lm")[1]
    asked = json.loads(file.read_text(encoding="utf-8").splitlines()[0])["arguments"]["gen_args_0"]["arg_1"]
    assert asked["max_gen_toks"] == 64 and asked["do_sample"] is False


def test_what_no_judge_could_say_has_no_score(run, tmp_path):
    rows = [json.loads(line) for line in (run / "evaluation/base/xstest.jsonl").read_text(encoding="utf-8").splitlines()]
    write_jsonl(run / "evaluation/base/xstest.jsonl", [row | {"refused": None} for row in rows])
    log = logs(run, tmp_path / "logs")[0]["micro-base", "xstest"]
    assert [sample["scores"] for sample in log["samples"]] == [{}] * 4
    assert log["results"]["scores"][0]["unscored_samples"] == 4 and "stderr" not in log["results"]["scores"][0]["metrics"]
    file = export.export_run(run, "lm-eval", tmp_path / "lm")[2]
    assert [json.loads(line)["over_refusal_rate"] for line in file.read_text(encoding="utf-8").splitlines()] == [None] * 4


def call(monkeypatch, capsys, *arguments):
    """Returns exit code and what the command wrote."""
    monkeypatch.setattr("sys.argv", ["export", *map(str, arguments)])
    code = 0
    try:
        export.main()
    except SystemExit as error:
        code = error.code
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_the_command_says_what_it_wrote_and_that_harm_is_in_it(run, tmp_path, monkeypatch, capsys):
    code, text = call(monkeypatch, capsys, run, "format=inspect", f"out={tmp_path / 'logs'}")
    assert code == 0 and "6 files are in" in text and "harmful ones too" in text and "thought" not in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["format=html", "out=x"], "format=html: no such format; there are inspect and lm-eval."),
        (["out=x"], "format: missing"),
        (["format=inspect"], "out: missing"),
        (["format=inspect", "out=x", "task=gsm8k"], "task=gsm8k: expected format="),
        (["format=inspect", "out={run}/config.yaml"], "a file is there"),
    ],
)
def test_a_slip_ends_with_code_2_and_one_sentence(run, monkeypatch, capsys, arguments, said):
    code, text = call(monkeypatch, capsys, run, *(one.format(run=run) for one in arguments))
    assert code == 2 and said in text and text.count("\n") == 1


def test_runs_without_outputs_are_refused(tmp_path, run):
    with pytest.raises(UserError, match="no finished run is there"):
        export.export_run(tmp_path / "nowhere", "inspect", tmp_path / "logs")
    for file in run.glob("evaluation/*/*.jsonl"):
        file.unlink()
    with pytest.raises(UserError, match="evaluated no model"):
        export.export_run(run, "inspect", tmp_path / "logs")
    assert not (tmp_path / "logs").exists()


def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()
