"""The training benchmark: what it counts, and that our side of it runs where only PyTorch's own family is installed."""

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import sft_throughput
from benchmarks.sft_throughput import TRL_SETTINGS, Run, Shape
from tests.helpers.runs import ROOT

TINY = Shape(512, 32, 64, 2, 4, 2, tied=True, examples=4)


def test_floating_point_operations_are_those_that_torch_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sft_throughput.SHAPES, "tiny", TINY)
    model = sft_throughput._model(sft_throughput.Job("tiny", "ours", "", 1, False, "adamw", False))
    ids = list(range(96))
    with FlopCounterMode(display=False) as counter:
        logits = model(torch.tensor([ids]), use_cache=False).logits
        logits.sum().backward()
    # Every token as a target; torch counts no attention on the CPU, and biases and norms are no products.
    attention = 6 * TINY.layers * TINY.width * len(ids) * (len(ids) + 1)
    vectors = 6 * sum(weight.numel() for weight in model.parameters() if weight.ndim < 2) * len(ids)
    expected = sft_throughput._flops_per_token(model, [(ids, 0)]) * len(ids)
    assert counter.get_total_flops() == pytest.approx(expected - attention - vectors)


def test_made_rows_are_as_long_as_star1s_and_the_same_every_time() -> None:
    args = Namespace(rows=None, tokenizer=None)
    rows = sft_throughput._rows(args, sft_throughput.SHAPES["small"], 64)
    lengths = sorted(len(ids) for ids, _ in rows)
    assert 330 < lengths[32] < 420 and lengths[-1] <= 1100
    assert max(id_ for ids, _ in rows for id_ in ids) < 4096
    assert rows == sft_throughput._rows(args, sft_throughput.SHAPES["small"], 64)
    long = sft_throughput._rows(args, sft_throughput.SHAPES["thin"], 64)
    assert 1000 <= min(len(ids) for ids, _ in long) < 1100 and 1900 < max(len(ids) for ids, _ in long) <= 2000


def test_rows_of_a_file_are_encoded_and_folded_into_the_vocabulary(micro_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    lines = [{"question": f"step {i} : multiply 5", "response": "<think>\nlast digit\n</think>\n\nit is 9"} for i in range(4)]
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    rows = sft_throughput._rows(Namespace(rows=file, tokenizer=micro_folder), Shape(16, 32, 64, 2, 4, 2, tied=True), 4)
    assert len(rows) == 4 and all(0 < num_prompt < len(ids) and max(ids) < 16 for ids, num_prompt in rows)


def test_speed_is_counted_from_the_end_of_the_first_step() -> None:
    run = Run(tokens=[1000, 30, 50], targets=[900, 20, 40], losses=[2.0, 1.5, 1.0], ends=[10.0, 11.0, 12.0], peak=3 * 2**20)
    assert run.rate == 40.0
    assert str(run) == "40 tokens/s (30 target tokens/s), peak 3 MiB, loss 2.0000 → 1.0000 in 3 steps"


def test_thin_is_a_smollm2_135m() -> None:
    with torch.device("meta"):
        model = sft_throughput.random_model(sft_throughput.SHAPES["thin"], "meta")
    assert type(model).__name__ == "LlamaForCausalLM" and sum(weight.numel() for weight in model.parameters()) == 134_515_008


def test_the_share_of_the_peak_is_told_where_the_peak_is_known() -> None:
    run = Run(tokens=[1, 100], ends=[0.0, 2.0], flops_per_token=1e9)
    assert run.share_of(200e9) == "MFU 25.0% of 0.2 TFLOP/s"
    assert run.share_of(None) == "0 TFLOP/s, of unknown peak"


def test_the_default_is_trl_as_it_comes() -> None:
    assert TRL_SETTINGS["default"] == {"per_device_train_batch_size": TINY.examples * 2}


BARE = """
from tests.helpers.missing import hide
hide("hydra", "omegaconf", "datasets", "trl", "bitsandbytes", "torchao")
import torch
if hasattr(torch.nn.functional, "linear_cross_entropy"):
    del torch.nn.functional.linear_cross_entropy  # new in torch 2.13
from benchmarks import sft_throughput
sft_throughput.SHAPES["tiny"] = sft_throughput.Shape(512, 32, 64, 2, 4, 2, tied=True, examples=4)
sft_throughput._run_worker()
"""


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_our_side_trains_where_hydra_datasets_and_trl_are_missing(tmp_path: Path, checkpointing: bool) -> None:
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps(sft_throughput._rows(Namespace(rows=None, tokenizer=None), TINY, 12)), encoding="utf-8")
    runs = {}
    for side in ("ours", "full logits"):
        job = sft_throughput.Job("tiny", side, str(rows), 3, False, "adamw", checkpointing)
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", BARE],
            input=json.dumps({"parent": None, "job": vars(job)}),
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        runs[side] = Run(**json.loads(done.stdout.splitlines()[-1]))
    ours, full = runs["ours"], runs["full logits"]
    assert ours.tokens == [sum(len(ids) for ids, _ in json.loads(rows.read_text())[start : start + 4]) for start in (0, 4, 8)]
    assert len(ours.losses) == len(ours.ends) == len(ours.targets) == 3 and ours.peak > 2**20
    assert ours.losses == pytest.approx(full.losses, rel=1e-3)
