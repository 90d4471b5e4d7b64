"""The proof on a GPU: every part runs to its end in its dry form, and a part that fails does not take the others along."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks.gpu_parts.part import each
from benchmarks.gpu_proof import PARTS, Part, prove
from tests.helpers.processes import lives
from tests.helpers.runs import ROOT

ABSENT = ("hydra", "omegaconf", "datasets", "wandb", "vllm", "bitsandbytes", "torchao", "trl")


def part(name: str, seconds: float = 300) -> Part:
    return Part(name, f"tests.helpers.proof_parts:{name}", seconds)


@pytest.mark.slow
def test_every_part_runs_dry_where_the_command_lines_packages_are_missing(tmp_path: Path) -> None:
    hidden = f"from tests.helpers.missing import hide\nhide(*{ABSENT})\n"
    (tmp_path / "sitecustomize.py").write_text(hidden, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "benchmarks/gpu_proof.py", "--dry", "--out", str(tmp_path / "proof.jsonl")],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert (tmp_path / "proof.jsonl").read_text(encoding="utf-8") == done.stdout
    assert [line["part"] for line in lines if line.get("done")] == [one.name for one in PARTS]
    by_part = {one.name: [line for line in lines if line["part"] == one.name and "case" in line] for one in PARTS}
    versions, attention = by_part["attention"]
    assert "cu_seq_q" in versions["varlen_attn"] and versions["versions"]["torch"] and attention["agrees"]
    assert max(by_part["cross_entropy"][0]["relative_difference_from_fp32"].values()) < 0.01
    eager, compiled, autocast = (line["saved_bytes_per_token"] for line in by_part["layer"])
    assert 0 < compiled < eager < autocast
    assert len(by_part["training"]) == 5
    for loss in ("loss_first", "loss_last"):
        values = [line[loss] for line in by_part["training"]]
        assert values == pytest.approx([values[0]] * 5, abs=0.01), loss
    assert all(line["planned_bytes"] > 0 for line in by_part["training"])
    steps, waits = by_part["profile"]
    assert steps["step_ms"] > 0 and steps["top_kernels"] and waits["places"] == {}
    assert all(line["equal_losses"] and line["export_reloads"] for line in by_part["fits"]) and len(by_part["fits"]) == 8
    assert [line["resumed_from_step"] > 0 for line in by_part["fits"]] == [False] * 7 + [True]
    assert by_part["decoding"][0]["step_ms"] > 0
    _, *saves, steps = by_part["checkpoint"]
    assert [line["case"].split(", ")[1] for line in saves] == ["weights and moments"] * 2 + ["weights alone"]
    assert all(line["gb_per_second"] > 0 and line["blocking_seconds"] <= line["seconds"] for line in saves[:2])
    assert steps["step_seconds"] > 0
    assert not list(tmp_path.glob("dgr-proof-*"))


@pytest.mark.slow
def test_a_part_that_hangs_dies_or_fails_is_a_line_and_the_others_go_on(tmp_path: Path) -> None:
    parts = [part("hang", 1), part("die"), part("fail"), part("succeed")]
    *lines, last = prove(parts, tmp_path, 900, dry=True)
    ends = {line["part"]: line["error"] for line in lines if "error" in line}
    assert ends == {
        "hang": "stopped at its limit of 1 s",
        "die": "SIGKILL: no message",
        "fail": "exit code 1: RuntimeError: CUDA error: an illegal memory access",
    }
    cases = {line["part"]: line for line in lines if "case" in line}
    assert cases["fail"] == {"part": "fail", "case": "before it fails"}
    assert cases["succeed"] == {"part": "succeed", "case": "well", "dry": True, "device": "cpu"}
    child = cases["die"]["child"]
    assert not (psutil.pid_exists(child) and lives(psutil.Process(child)))
    assert last["part"] == "succeed" and last["done"]


def test_parts_for_which_no_time_is_left_are_named(tmp_path: Path) -> None:
    lines = list(prove([part("succeed"), part("fail")], tmp_path, 0, dry=True))
    assert lines == [{"part": name, "error": "not begun: the 0 s of all parts are over"} for name in ("succeed", "fail")]


def test_a_case_that_fails_leaves_the_others_of_its_part() -> None:
    def fail() -> dict[str, float]:
        raise MemoryError("out of memory. Tried to allocate 20 GiB")

    lines = list(each({"too large": fail, "small": lambda: {"step_ms": 3.0}}))
    assert lines == [
        {"case": "too large", "error": "MemoryError: out of memory. Tried to allocate 20 GiB"},
        {"case": "small", "step_ms": 3.0},
    ]


def test_without_a_gpu_it_says_so_and_ends_with_exit_code_2() -> None:
    hidden = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "benchmarks/gpu_proof.py"]
    done = subprocess.run(command, cwd=ROOT, env=hidden, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == "" and "--dry runs every part on the CPU" in done.stderr
