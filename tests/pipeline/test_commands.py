"""Whole runs through the real entry points: killed and taken up again, real rows on a real tokenizer, shown when done."""

import json
import subprocess
import sys
from pathlib import Path

import pandas
import pytest
import yaml

from dgr_lightning.files import read_jsonl
from dgr_lightning.training.curves import read_curves
from tests.helpers.runs import ROOT, SMALL, environment, kill_when, rank_processes, run, summary_of


@pytest.mark.slow
def test_a_run_killed_in_training_resumes_and_ends_in_the_same_bits(tmp_path, cache):
    overrides = [*SMALL, "trainer.checkpoint_every=5", "sft.epochs=15"]

    def checkpointed() -> bool:
        return any((tmp_path / "killed" / "checkpoints").glob("step-????????"))

    kill_when(checkpointed, tmp_path / "killed", cache, *overrides)
    assert not (tmp_path / "killed" / "model").exists()
    run(tmp_path / "killed", cache, *overrides)
    run(tmp_path / "undisturbed", cache, *overrides)

    assert summary_of(tmp_path / "killed")["training"]["resumed_from_step"] > 0
    assert summary_of(tmp_path / "undisturbed")["training"]["resumed_from_step"] == 0
    names = ("model/model.safetensors", "refined.jsonl")
    for name in names:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes(), name
    columns = [
        [line.split(",")[:2] for line in (tmp_path / run_name / "metrics.csv").read_text().splitlines()]
        for run_name in ("killed", "undisturbed")
    ]
    assert columns[0] == columns[1]
    assert not any((tmp_path / name / "checkpoints").exists() for name in ("killed", "undisturbed")), "both are whole"


@pytest.mark.slow
def test_a_run_on_two_ranks_killed_whole_goes_on_and_leaves_what_one_process_leaves(tmp_path, cache):
    """The command line's process and with it both ranks are killed; a new command goes on from the last checkpoint."""
    overrides = [*SMALL, "trainer.checkpoint_every=5", "sft.epochs=6", "probes.every=20"]
    ranks = ["trainer=fsdp", "trainer.accelerator=cpu", "trainer.devices=2"]

    def checkpointed() -> bool:
        return any((tmp_path / "two" / "checkpoints").glob("step-????????"))

    kill_when(checkpointed, tmp_path / "two", cache, *overrides, *ranks)
    assert not (tmp_path / "two" / "model").exists()
    assert not rank_processes(tmp_path / "two"), "ranks die with their parent"
    run(tmp_path / "two", cache, *overrides, *ranks)
    run(tmp_path / "one", cache, *overrides)
    one, two = summary_of(tmp_path / "one"), summary_of(tmp_path / "two")
    assert two["training"]["resumed_from_step"] > 0 and two["config_hash"] == one["config_hash"]
    assert (tmp_path / "two" / "refined.jsonl").read_bytes() == (tmp_path / "one" / "refined.jsonl").read_bytes()
    tables = [pandas.read_csv(tmp_path / name / "metrics.csv") for name in ("one", "two")]
    assert tables[1]["train/loss"].tolist() == pytest.approx(tables[0]["train/loss"].tolist(), rel=1e-4, nan_ok=True)
    assert tables[1]["probe/reasoning_accuracy"].dropna().size == tables[0]["probe/reasoning_accuracy"].dropna().size > 0


@pytest.mark.slow
def test_a_finished_run_is_shown_and_another_evaluation_trains_nothing_again(tmp_path, cache):
    small = [*SMALL, "engine.precision=fp32"]
    run(tmp_path / "run", cache, *small, "trainer.keep_optimizer=true")
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert json.loads((checkpoint / "state.json").read_text())["optimizer"] is not None
    weights = tmp_path / "run" / "model" / "model.safetensors"
    trained = weights.stat().st_mtime_ns
    summary = (tmp_path / "run" / "summary.json").stat().st_mtime_ns

    shown = run(tmp_path / "run", cache, *small)
    assert "is done" in shown and (tmp_path / "run" / "summary.json").stat().st_mtime_ns == summary

    run(tmp_path / "run", cache, *small, "evaluation.limit=12")
    assert weights.stat().st_mtime_ns == trained and checkpoint.exists()
    assert summary_of(tmp_path / "run")["tuned"]["tasks"]["micro-short"]["accuracy"]["n"] == 12

    # Evaluating the exported folder finds its language and tasks by itself.
    tuned = [f"model.path={tmp_path / 'run' / 'model'}", "evaluation.limit=12", "engine.precision=fp32"]
    run(tmp_path / "evaluated", cache, *tuned, script="evaluate.py")
    alone, within = summary_of(tmp_path / "evaluated")["base"], summary_of(tmp_path / "run")["tuned"]
    assert alone["headline"] == within["headline"]


@pytest.mark.slow
def test_a_sweep_makes_a_directory_a_point_and_shares_rewrites_and_base(tmp_path, cache):
    arguments = ["-m", "refine=vanilla,dgr", "seed=1,2", *SMALL, f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    first = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *arguments],
        env=environment(cache),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert first.returncode == 0, first.stdout + first.stderr
    points = sorted((tmp_path / "sweep").rglob("summary.json"))
    assert len(points) == 4
    configs = [yaml.safe_load((point.parent / "config.yaml").read_text()) for point in points]
    assert {(cfg["refine"]["strategy"], cfg["seed"]) for cfg in configs} == {
        (arm, seed) for arm in ("vanilla", "dgr") for seed in (1, 2)
    }
    assert len(list((cache / "evaluations" / "micro-short").iterdir())) == 1
    times = [point.stat().st_mtime_ns for point in points]
    again = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *arguments],
        env=environment(cache),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert again.returncode == 0 and again.stdout.count("is done") == 4
    assert [point.stat().st_mtime_ns for point in points] == times


@pytest.mark.slow
def test_a_mixture_of_three_kinds_is_refined_and_trained_on(tmp_path, cache):
    mix = (
        "data.mix=[{data: micro-directrefusal, share: .6}, {data: micro-r1act, kind: benign, share: .25}, "
        "{data: micro-retention, kind: retention, share: .15}]"
    )
    printed = run(tmp_path / "run", cache, mix, *SMALL, "sft.max_steps=4")
    counts = {"harmful": 29, "benign": 12, "retention": 7}
    sources = {"micro-directrefusal": 29, "micro-r1act": 12, "micro-retention": 7}
    assert "48 examples of mix (harmful 29, benign 12, retention 7; from micro-directrefusal 29, micro-r1act 12," in printed
    summary = summary_of(tmp_path / "run")
    data = summary["data"]
    assert (data["labels"], data["sources"], data["rejected"]) == (counts, sources, {})
    assert summary["training"]["steps"] == 4
    refined = list(read_jsonl(tmp_path / "run" / "refined.jsonl"))
    assert len({row["id"] for row in refined}) == 48
    assert [row["label"] for row in refined] == [label for label, count in counts.items() for _ in range(count)]
    assert {row["source"] for row in refined[41:]} == {"micro-retention"}
    assert {row["label"] for row in refined if row["refined"]} == set(counts), "rows of every kind are rewritten"
    card = (tmp_path / "run" / "dataset" / "README.md").read_text()
    assert "0.6 micro-directrefusal (harmful), 0.25 micro-r1act (benign), 0.15 micro-retention (retention)" in card


@pytest.mark.slow
def test_the_shift_is_measured_anew_where_it_is_asked_otherwise_and_nothing_else_is(tmp_path, cache):
    small = [*SMALL, "probes.tasks=[micro-short,micro-harmful]"]
    run(tmp_path / "run", cache, *small)
    first = summary_of(tmp_path / "run")
    assert first["shift"]["kl"] is None and first["shift"]["similarity"] is None
    assert first["shift"]["before"]["both"]["nll"]["value"] == first["refinement"]["nll_before"]
    assert first["refinement"]["nll_after"] < 0.5 < first["refinement"]["nll_before"]
    weights = (tmp_path / "run" / "model" / "model.safetensors").stat().st_mtime_ns

    printed = run(tmp_path / "run", cache, *small, "shift.embedding=target", "shift.prompts=6", "shift.max_new_tokens=60")
    assert "Refinement: done before" in printed and "Training: done before" in printed
    assert (tmp_path / "run" / "model" / "model.safetensors").stat().st_mtime_ns == weights
    shift = summary_of(tmp_path / "run")["shift"]
    assert set(shift["kl"]) == {"all", "reasoning", "harmful"} and shift["kl"]["harmful"]["kl"]["value"] > 0.01
    assert 0 < shift["similarity"]["rewrites"]["value"] < shift["similarity"]["outputs"]["value"] <= 1

    # refine.py finds the same of that model.
    tuned = [f"shift.tuned={tmp_path / 'run' / 'model'}", "shift.prompts=6", "shift.max_new_tokens=60"]
    run(tmp_path / "refined", cache, *small[:1], small[-1], *tuned, script="refine.py")
    assert summary_of(tmp_path / "refined")["shift"]["kl"] == shift["kl"]


@pytest.fixture(scope="module")
def random_qwen2(shared, tmp_path_factory) -> Path:
    """A random two-layer Qwen2 with the real R1-Distill tokenizer and vocabulary."""
    import shutil

    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("random-qwen2")
    config = Qwen2Config(
        vocab_size=152064,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=128,
        max_position_embeddings=4096,
        bos_token_id=151646,
        eos_token_id=151643,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(shared / "tokenizers" / "r1-distill-qwen" / name, folder / name)
    return folder


@pytest.mark.slow
def test_what_a_run_trained_on_can_be_trained_on_again_to_the_same_loss(tmp_path):
    training = ("sft.max_steps=6", "probes.every=0", "evaluation.limit=4")
    run(tmp_path / "first", tmp_path / "cache", "data.limit=32", *training)
    run(tmp_path / "again", tmp_path / "cache", f"data.path={tmp_path / 'first'}", "refine=vanilla", *training)
    first, again = (read_curves(tmp_path / name / "metrics.csv")["train/loss"] for name in ("first", "again"))
    assert first == again and len(first) == 6
    rows = [list(read_jsonl(tmp_path / name / "refined.jsonl")) for name in ("first", "again")]
    assert [row["id"] for row in rows[0]] == [row["id"] for row in rows[1]]
    assert {row["label"] for row in rows[1]} == {"harmful", "benign"}


def check_refined(run_dir: Path, printed: str) -> None:
    """A random model writes nothing that passes; harmful text is in files and not on the screen."""
    summary = summary_of(run_dir)
    assert summary["refinement"]["examples"] == 12 == sum(summary["refinement"]["fallback"].values())
    assert "fallback" in printed and "12 of 12" in printed
    examples = list(read_jsonl(run_dir / "refined.jsonl"))
    assert len(examples) == 12
    # Of no example as much as its first words.
    texts = [text for example in examples for text in (example["prompt"], example["trace"], example["answer"])]
    assert not [text for text in texts if len(text) > 40 and text[:40] in printed]
    first = (run_dir / "stages" / "first_example.txt").read_text().replace("│", "")
    assert examples[0]["prompt"][:20].strip() in first


@pytest.mark.slow
def test_real_rows_without_a_trace_are_refined_with_a_real_tokenizer(tmp_path, cache, shared, random_qwen2):
    rows = shared / "data" / "lrm_safety_study_nocot" / "sft_train_nocot.json"
    sources = [f"model.path={random_qwen2}", "data=local", f"data.path={rows}", "data.limit=12", "refine.max_new_tokens=32"]
    printed = run(tmp_path / "run", cache, *sources, script="refine.py")
    check_refined(tmp_path / "run", printed)
    assert all(row["trace"] == "" for row in read_jsonl(tmp_path / "run" / "refined.jsonl"))


@pytest.mark.slow
def test_real_rows_on_a_real_tokenizer_run_through_every_stage(tmp_path, cache, shared, random_qwen2):
    tasks = {
        "gsm8k": "gsm8k/test.jsonl",
        "math500": "math500/test.jsonl",
        "strongreject": "strongreject/strongreject_dataset.csv",
        "xstest": "xstest/xstest_prompts.csv",
    }
    printed = run(
        tmp_path / "run",
        cache,
        f"model.path={random_qwen2}",
        "data=star1",
        f"data.path={shared / 'data' / 'star1' / 'STAR-1.json'}",
        "data.limit=12",
        "evaluation=quick",
        "evaluation.limit=4",
        *(f"evaluation.path.{task}={shared / 'data' / path}" for task, path in tasks.items()),
        "evaluation.max_new_tokens=24",
        "refine.max_new_tokens=32",
        "sft.max_steps=3",
    )
    check_refined(tmp_path / "run", printed)
    summary = summary_of(tmp_path / "run")
    assert set(summary["tuned"]["tasks"]) == set(tasks)
    assert all(
        part["accuracy" if task in ("gsm8k", "math500") else "cap_hit_rate"]["n"] == 4
        for task, part in summary["tuned"]["tasks"].items()
    )
    assert summary["training"]["steps"] == 3

    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    assert model.config.num_hidden_layers == 2
    assert tokenizer.decode(tokenizer.encode("Hello world,\n2 + 2 = 4", add_special_tokens=False)) == "Hello world,\n2 + 2 = 4"
