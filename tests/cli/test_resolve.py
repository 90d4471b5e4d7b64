"""Every auto becomes a value, and keys that nothing reads are named."""

import json
import re
from pathlib import Path

import pytest
import torch


def test_auto_becomes_a_value(run_script, capsys):
    code, [(cfg, place)] = run_script()
    assert code == 0
    assert cfg.trainer.accelerator in ("cpu", "cuda") and cfg.engine.name == "transformers"
    assert {cfg.trainer.precision, cfg.engine.precision} <= {"bf16", "fp32"}
    assert (place.root, place.exact) == (Path("runs"), None)
    assert f"trainer.precision={cfg.trainer.precision}" in capsys.readouterr().out


def test_gpus_without_vllm_are_a_warning_that_says_what_to_install(run_script, monkeypatch, capsys):
    import torch

    from dgr_lightning.cli import resolve
    from dgr_lightning.engines import registry

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **options: True)
    resolve._warn_once.cache_clear()

    def said(*overrides: str) -> str:
        code, [(cfg, _)] = run_script(*overrides)
        assert code == 0 and cfg.trainer.accelerator == "cuda"
        return " ".join(capsys.readouterr().out.split())

    warning = "one GPU alone: vLLM is not installed. pip install -r requirements-gpu.txt, or the package with its extra [gpu]"
    assert warning in said() and warning not in said(), "once for all points of a sweep"
    resolve._warn_once.cache_clear()
    assert "one GPU alone" not in said("engine=transformers")
    monkeypatch.setattr(registry, "_installed", lambda *wanted: "vllm" in wanted)
    assert "one GPU alone" not in said()


def test_keys_that_the_tuning_method_does_not_read_are_named(run_script, capsys):
    run_script("tuning.rank=4", "tuning.layers=0-1")
    assert "tuning.layers, tuning.rank: not used by tuning=full" in capsys.readouterr().out
    run_script("tuning=lora", "tuning.rank=4", "tuning.quant_storage=fp32")
    assert "tuning.quant_storage: not used by tuning=lora" in capsys.readouterr().out
    run_script("tuning=qlora", "tuning.rank=4", "tuning.quant_storage=fp32")
    assert "not used" not in capsys.readouterr().out


@pytest.fixture
def one_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr("dgr_lightning.distributed.devices.resolve_compile", lambda trainer, tuning: "it is Friday")


@pytest.mark.parametrize(
    ("arguments", "strategy"),
    [
        ([], "fsdp"),
        (["trainer=gpu"], "fsdp"),
        (["trainer.strategy=single"], "single"),
        (["trainer.precision=fp32"], "single"),
        (["tuning=lora"], "single"),
        (["trainer=cpu"], "single"),
    ],
)
def test_one_gpu_computes_in_bf16_by_fsdp_where_that_is_possible(one_gpu, run_script, capsys, arguments, strategy):
    code, [(cfg, _)] = run_script("engine=transformers", *arguments)
    assert code == 0 and (cfg.trainer.strategy, cfg.trainer.devices) == (strategy, 1)
    told = " ".join(capsys.readouterr().out.split())
    assert ("trainer.strategy=fsdp (which computes in bf16 on one device, too)" in told) == (strategy == "fsdp")
    assert ("trainer.compile=auto (it is Friday)" in told) == (arguments != ["trainer=cpu"])


def test_an_optimizer_whose_states_cannot_be_sharded_keeps_autocast_on_one_gpu(request, run_script):
    pytest.importorskip("bitsandbytes")  # before the GPU is there, which it would look at
    request.getfixturevalue("one_gpu")
    assert run_script("engine=transformers", "sft.optimizer=adamw8bit")[1][0][0].trainer.strategy == "single"


QWEN2_7B = {
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "tie_word_embeddings": False,
}


@pytest.fixture
def eight_devices(monkeypatch):
    """Lets PyTorch find eight CUDA devices of so many GiB."""

    def pretend(gib):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
        monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", lambda index: 0, raising=False)  # fake tensors ask for it
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
        monkeypatch.setattr("dgr_lightning.training.memory_fit.smallest_gpu_memory", lambda: gib * 2**30)

    return pretend


@pytest.mark.parametrize(
    ("gib", "options", "strategy", "said"),
    [
        (80, ["experiment=r1act"], "ddp", " (the whole model on each device takes N of 80 GiB for a row of 32,768 tokens)"),
        (
            24,
            ["experiment=r1act", "tuning=lora", "sft.optimizer=adamw"],
            "fsdp",
            " (the whole model on each device takes N of 24",
        ),
        (80, ["experiment=r1act", "trainer.shard_size=8", "sft.optimizer=adamw"], "fsdp", ","),
        (80, ["experiment=r1act", "tuning=full", "sft.optimizer=adamw8bit-torchao"], "fsdp", ","),
    ],
)
def test_adapters_on_eight_devices_are_not_sharded_where_each_holds_the_model(
    run_script, folder, rows, eight_devices, capsys, gib, options, strategy, said
):
    (folder / "config.json").write_text(json.dumps(QWEN2_7B))
    eight_devices(gib)
    local = ["model=local", f"model.path={folder}", f"data.path={rows}", "evaluation.tasks=[gsm8k]"]
    code, [(cfg, _)] = run_script(*options, *local, f"evaluation.path.gsm8k={rows}")
    assert (code, cfg.trainer.devices, cfg.trainer.strategy) == (0, 8, strategy)
    printed = re.sub(r"takes [\d.]+", "takes N", " ".join(capsys.readouterr().out.split()))
    assert f"trainer.strategy={strategy}{said}" in printed


def test_an_optimizer_whose_states_cannot_be_sharded_is_refused_for_every_weight(
    run_script, folder, rows, eight_devices, capsys
):
    eight_devices(80)
    local = ["model=local", f"model.path={folder}", f"data.path={rows}", "evaluation.tasks=[gsm8k]"]
    code, seen = run_script("experiment=r1act", "tuning=full", *local, f"evaluation.path.gsm8k={rows}")
    assert (code, seen) == (2, [])
    assert "sft.optimizer=adamw8bit with trainer.strategy=fsdp: its states cannot be sharded" in capsys.readouterr().err


def test_a_real_model_without_a_named_judge_is_recommended_a_guard(run_script, folder, monkeypatch, capsys):
    from dgr_lightning.cli import preflight, resolve

    monkeypatch.setattr(preflight, "require", lambda cfg, command: None)

    def recommended(*overrides: str) -> bool:
        resolve._warn_once.cache_clear()
        assert run_script(*overrides, command="evaluate")[0] == 0
        return "judge=qwen3guard asks a guard model" in " ".join(capsys.readouterr().out.split())

    real = f"model.path={folder}"
    assert recommended(real)
    assert not recommended(real, "judge=keywords") and not recommended(real, "judge=qwen3guard") and not recommended()
