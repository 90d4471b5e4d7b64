"""The expected stages of a run, on a machine that is not there."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from dgr_lightning.config import Config, TrainerConfig
from dgr_lightning.pipeline.planned_machine import planned_config
from dgr_lightning.pipeline.set_lengths import ExampleLength, SetLengths
from dgr_lightning.pipeline.time_plan import TimePlan, evaluation_generation
from dgr_lightning.report.stages import StageEstimate, StagesPlan
from tests.helpers.runs import ROOT, environment

R1_DISTILL_7B = {
    "model_type": "qwen2",
    "hidden_size": 3584,
    "intermediate_size": 18_944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152_064,
    "tie_word_embeddings": False,
}
PROBLEMS = {"gsm8k": 200, "math500": 200, "strongreject": 200, "xstest": 200}


def model():
    with torch.device("meta"):
        return Qwen2ForCausalLM(Qwen2Config(**R1_DISTILL_7B))


def config(**trainer) -> Config:
    cfg = Config()
    cfg.trainer = TrainerConfig(**{"accelerator": "cuda", "devices": 8, "device_name": "H100", "precision": "bf16"} | trainer)
    cfg.sft.batch_size, cfg.sft.epochs, cfg.sft.max_length = 8, 5, 16_384
    cfg.evaluation.max_new_tokens = 8192
    cfg.probes.tasks = ["gsm8k", "advbench"]
    return cfg


def planned(cfg: Config, problems: dict[str, int] | None = PROBLEMS) -> StagesPlan:
    lengths = [ExampleLength(f"e-{number}", 30, 600, 200, 4) for number in range(1000)]
    return TimePlan(planned_config(cfg, Path()), model(), SetLengths(lengths, 16_384)).stages(problems)


def stage(plan: StagesPlan, name: str) -> StageEstimate:
    (found,) = (one for one in plan.stages if one.name.startswith(name))
    return found


def test_kinds_and_tasks_with_budgets_of_their_own_are_planned_by_them() -> None:
    cfg = config()
    cfg.evaluation.by_kind = {"harmful": {"max_new_tokens": 100}, "reasoning": {"samples": 2}}
    cfg.evaluation.by_task = {"math500": {"max_new_tokens": 300}}
    wanted = evaluation_generation(cfg.evaluation, {"math500": 10, "strongreject": 10, "xstest": 10})
    assert (wanted.num_sequences, wanted.output_tokens) == (40, 20 * 300 + 10 * 100 + 10 * 500)


def test_a_7b_on_eight_devices() -> None:
    plan = planned(config())
    assert plan.machine == "8 × H100 SXM"
    assert [one.name.split(",")[0] for one in plan.stages] == [
        "start of engines (2 ×)",
        "refinement",
        "shift",
        "evaluation of the base model",
        "training",
        "probes",
        "evaluation of the tuned model",
    ]
    training = stage(plan, "training")
    assert training.name == "training, 625 steps" and training.tokens == 5 * 1000 * 834
    # 6 × 7.1e9 products of weights a token, and the share of the peak that 834 tokens a device are assumed to reach.
    assert 150 < training.seconds < 300
    assert stage(plan, "refinement").tokens == 2 * 1000 * 800
    base, tuned = stage(plan, "evaluation of the base"), stage(plan, "evaluation of the tuned")
    assert base.name.endswith("800 outputs") and (base.tokens, base.seconds) == (tuned.tokens, tuned.seconds)
    assert any("trainer.device_name=H100" in sentence for sentence in plan.assumptions)


def test_more_devices_take_less_time_and_adapters_fewer_operations() -> None:
    one, eight = planned(config(devices=1)), planned(config())
    for name in ("refinement", "shift", "evaluation of the base", "training"):
        assert stage(eight, name).seconds < stage(one, name).seconds
    cfg = config(strategy="fsdp")
    cfg.tuning.method = "lora"
    assert stage(planned(cfg), "training").seconds == pytest.approx(stage(eight, "training").seconds * 2 / 3, rel=0.02)


def test_probes_that_take_longer_than_they_should_are_named_with_the_keys_that_help() -> None:
    cfg = config()
    (warning,) = planned(cfg).warnings
    assert "of the training's time" in warning and "probes.size (now 16)" in warning
    cfg.probes.max_new_tokens = 32
    assert not planned(cfg).warnings
    cfg.probes.every = 0
    assert not any(one.name.startswith("probes") for one in planned(cfg).stages)


def test_without_a_gpu_training_is_estimated_from_what_the_cpu_shows_and_generation_is_not() -> None:
    plan = planned(config(accelerator="cpu", devices=1, device_name=None))
    assert plan.machine == "this CPU" and stage(plan, "training").seconds > 3600
    assert stage(plan, "refinement").seconds is None and stage(plan, "evaluation of the base").seconds is None
    assert not any(one.name.startswith("start of engines") for one in plan.stages)
    assert any("generation is not estimated" in sentence for sentence in plan.assumptions)


def test_a_refinement_alone_ends_with_the_shift() -> None:
    assert [one.name.split(",")[0] for one in planned(config(), None).stages] == [
        "start of engines (1 ×)",
        "refinement",
        "shift",
    ]


def test_tasks_share_one_stream_whose_longest_output_is_the_budget() -> None:
    cfg = config().evaluation
    cfg.samples = 4
    wanted = evaluation_generation(cfg, {"math500": 100, "strongreject": 50})
    assert (wanted.num_sequences, wanted.longest) == (600, 8192)
    assert wanted.output_tokens == 400 * 4000 + 200 * 500
    cfg.by_task = {"math500": {"samples": 2}}
    assert evaluation_generation(cfg, {"math500": 100, "strongreject": 50}).num_sequences == 400


@pytest.mark.slow
def test_on_a_laptop_the_command_plans_eight_devices_that_are_named(cache: Path, shared: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(shared / "tokenizers" / "r1-distill-qwen", tmp_path / "model", copy_function=shutil.copyfile)
    (folder / "config.json").write_text(json.dumps(R1_DISTILL_7B), encoding="utf-8")
    rows = shared / "data" / "star1" / "STAR-1.json"
    overrides = ["model=r1-distill-7b", f"model.path={folder}", "data=star1", f"data.path={rows}", "data.limit=200"]
    named = ["plan=true", "trainer.accelerator=cuda", "trainer.devices=8", "trainer.device_name=H100"]
    ended = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *overrides, *named],
        cwd=tmp_path,
        env=environment(cache) | {"COLUMNS": "160"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    shown = " ".join(ended.stdout.split())
    assert "Stages on 8 × H100 SXM, estimated" in shown and "training, 125 steps" in shown and "all together" in shown
    assert "Memory on each of 8 devices (fsdp) of 80 GiB" in shown, "the device's memory is planned with"
    assert "disk: 42.6 GiB while it trains, and 85.1 GiB for each checkpoint before the last one" in shown
    assert "H100 SXM: 989 TFLOP/s, 3.35 TB/s, 80 GB (trainer.device_name=H100)" in shown
