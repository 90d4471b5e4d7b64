"""Every auto becomes a value, and keys that nothing reads are named."""

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
