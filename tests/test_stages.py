"""Whole runs through the real entry points: killed and taken up again, real rows on a real tokenizer, shown when done."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from dgr_lightning.records import read_jsonl

ROOT = Path(__file__).parents[1]

# A small run of the real pipeline on the miniature; greedy in fp32 makes the refined set independent of how batches are cut.
SMALL = ["data.limit=48", "evaluation.limit=8", "probes.size=8", "probes.every=0", "trainer.precision=fp32"]
GREEDY = ["engine.precision=fp32", "refine.temperature=0", "engine.batch_size=4"]


@pytest.fixture
def cache(tmp_path, micro_folder):
    """A cache of its own with the miniature in it, so that no rewrite or evaluation is there already."""
    folder = tmp_path / "cache"
    (folder / "micro").mkdir(parents=True)
    (folder / "micro" / micro_folder.name).symlink_to(micro_folder, target_is_directory=True)
    return folder


def command(run_dir: Path, *overrides: str, script: str = "train.py") -> list[str]:
    return [sys.executable, str(ROOT / script), f"hydra.run.dir={run_dir}", *overrides]


def environment(cache: Path) -> dict[str, str]:
    return os.environ | {"DGR_CACHE": str(cache), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def run(run_dir: Path, cache: Path, *overrides: str, script: str = "train.py") -> str:
    """Runs an entry point to its end and returns what it printed."""
    done = subprocess.run(
        command(run_dir, *overrides, script=script), env=environment(cache), capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def kill_when(condition, run_dir: Path, cache: Path, *overrides: str) -> None:
    """Starts train.py and kills it with SIGKILL as soon as `condition()` holds."""
    process = subprocess.Popen(
        command(run_dir, *overrides), env=environment(cache), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 300
        while not condition():
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def stored_lines(cache: Path) -> list[str]:
    """Every whole line of every store of rewrites."""
    files = sorted((cache / "rewrites").rglob("*.jsonl"))
    return [line for file in files for line in file.read_bytes().decode().split("\n")[:-1]]


def summary_of(run_dir: Path) -> dict:
    return json.loads((run_dir / "summary.json").read_text())


@pytest.mark.slow
def test_a_run_killed_in_refinement_generates_nothing_twice_and_ends_as_an_undisturbed_one(tmp_path, cache, micro_folder):
    refine = [*SMALL, *GREEDY]
    kill_when(lambda: len(stored_lines(cache)) > 10, tmp_path / "killed", cache, *refine)
    before = stored_lines(cache)
    assert 10 < len(before) < 90
    assert not (tmp_path / "killed" / "summary.json").exists()
    run(tmp_path / "killed", cache, *refine)

    after = stored_lines(cache)
    assert after[: len(before)] == before
    keys = [json.loads(line)["key"] for line in after if "key" in json.loads(line)]
    assert len(keys) == len(set(keys))

    other = tmp_path / "other-cache"
    (other / "micro").mkdir(parents=True)
    (other / "micro" / micro_folder.name).symlink_to(micro_folder, target_is_directory=True)
    run(tmp_path / "undisturbed", other, *refine)
    refined = (tmp_path / "killed" / "refined.jsonl").read_bytes()
    assert refined == (tmp_path / "undisturbed" / "refined.jsonl").read_bytes()
    rows = list(read_jsonl(tmp_path / "killed" / "refined.jsonl"))
    assert len(rows) == 48 and len({row["id"] for row in rows}) == 48
    assert list(rows[0]) == ["id", "prompt", "trace", "answer", "label", "source", "refined", "reason"]


@pytest.mark.slow
def test_a_run_killed_in_training_resumes_and_ends_in_the_same_bits(tmp_path, cache):
    overrides = [*SMALL, "trainer.checkpoint_every=5", "sft.epochs=30"]

    def checkpointed() -> bool:
        return any((tmp_path / "killed" / "checkpoints").glob("step-*.ckpt"))

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


@pytest.mark.slow
def test_a_finished_run_is_shown_and_another_evaluation_trains_nothing_again(tmp_path, cache):
    run(tmp_path / "run", cache, *SMALL)
    weights = tmp_path / "run" / "model" / "model.safetensors"
    trained = weights.stat().st_mtime_ns
    summary = (tmp_path / "run" / "summary.json").stat().st_mtime_ns

    shown = run(tmp_path / "run", cache, *SMALL)
    assert "is done" in shown and (tmp_path / "run" / "summary.json").stat().st_mtime_ns == summary

    run(tmp_path / "run", cache, *SMALL, "evaluation.limit=12")
    assert weights.stat().st_mtime_ns == trained
    assert summary_of(tmp_path / "run")["tuned"]["tasks"]["micro-short"]["accuracy"]["n"] == 12

    # Evaluating the exported folder finds its language and tasks by itself.
    run(tmp_path / "evaluated", cache, f"model.path={tmp_path / 'run' / 'model'}", "evaluation.limit=12", script="evaluate.py")
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
@pytest.mark.parametrize("data", ["star1", "local"])
def test_real_rows_on_a_real_tokenizer_run_through_every_stage(tmp_path, shared, random_qwen2, data):
    rows = {"star1": "star1/STAR-1.json", "local": "lrm_safety_study_nocot/sft_train_nocot.json"}[data]
    tasks = {
        "gsm8k": "gsm8k/test.jsonl",
        "math500": "math500/test.jsonl",
        "strongreject": "strongreject/strongreject_dataset.csv",
        "xstest": "xstest/xstest_prompts.csv",
    }
    printed = run(
        tmp_path / "run",
        tmp_path / "cache",
        f"model.path={random_qwen2}",
        f"data={data}",
        f"data.path={shared / 'data' / rows}",
        "data.limit=48",
        "evaluation=quick",
        "evaluation.limit=8",
        *(f"evaluation.path.{task}={shared / 'data' / path}" for task, path in tasks.items()),
        "evaluation.max_new_tokens=48",
        "refine.max_new_tokens=64",
        "sft.max_steps=3",
    )
    summary = summary_of(tmp_path / "run")
    assert summary["refinement"]["examples"] == 48
    assert sum(summary["refinement"]["fallback"].values()) == 48, "a random model writes nothing that passes"
    assert "fallback" in printed and "48 of 48" in printed
    assert set(summary["tuned"]["tasks"]) == set(tasks)
    assert all(
        part["accuracy" if task in ("gsm8k", "math500") else "cap_hit_rate"]["n"] == 8
        for task, part in summary["tuned"]["tasks"].items()
    )
    assert summary["training"]["steps"] == 3
    examples = list(read_jsonl(tmp_path / "run" / "refined.jsonl"))
    assert len(examples) == 48 and (data == "star1" or all(example["trace"] == "" for example in examples))

    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    assert model.config.num_hidden_layers == 2
    assert tokenizer.decode(tokenizer.encode("Hello world,\n2 + 2 = 4", add_special_tokens=False)) == "Hello world,\n2 + 2 = 4"
