"""Every auto becomes a value, and keys that nothing reads are named."""

from pathlib import Path


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
