"""Every auto becomes a value, and keys that nothing reads are named."""

from pathlib import Path


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
