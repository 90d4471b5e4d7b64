"""What fits a device: how much is recomputed for it, and what is written instead where nothing does."""

from copy import deepcopy
from itertools import combinations

import pytest

from dgr_lightning.config import Config
from dgr_lightning.config.setting import AUTO
from dgr_lightning.errors import UserError
from dgr_lightning.training.memory import RowSize, memory_plan, usable
from dgr_lightning.training.memory_fit import GIB, device_memory, fit_memory, fits, misfit, remedies, require_fit
from dgr_lightning.training.memory_sizes import ModelOutline
from tests.helpers.trainings import config

ROW = RowSize((4096,), 4096, several=False, cause="step 7 packs 9 examples into it")


@pytest.fixture(scope="module")
def outline() -> ModelOutline:
    """DeepSeek-R1-Distill-Qwen-7B."""
    from transformers import AutoConfig

    from benchmarks.memory_table import MODELS, QWEN2

    return ModelOutline(AutoConfig.for_model(**QWEN2 | MODELS["7B"]))


def on_gpu(devices: int = 1, **changes) -> Config:
    cfg = config(trainer_accelerator="cuda", trainer_precision="bf16", trainer_devices=devices, **changes)
    cfg.trainer.strategy = "fsdp" if devices > 1 else "single"
    cfg.sft.max_tokens = 4096
    return cfg


def changed(cfg: Config, remedy: tuple[str, ...]) -> Config:
    other = deepcopy(cfg)
    for override in remedy:
        key, _, value = override.partition("=")
        section, _, name = ("tuning.method" if key == "tuning" else key).partition(".")
        node = getattr(other, section)
        typed = {"true": True, "null": None, "auto": AUTO}.get(value, int(value) if value.isdigit() else value)
        setattr(node, name, typed)
    return other


def rows(cfg: Config) -> RowSize:
    return RowSize((min(4096, cfg.sft.max_tokens),), 1024, several=False)


@pytest.mark.parametrize("memory", [400, 46, 40, 26])
def test_auto_recomputes_as_few_layers_as_fit(outline: ModelOutline, memory: int) -> None:
    fit = fit_memory(outline, on_gpu(8), ROW, memory * GIB)
    every = fit.plan.recompute_every
    fitting = [n for n in range(29) if memory_plan(outline, on_gpu(8), ROW, n).total <= fit.usable]
    assert fit.is_enough and every == (0 if 0 in fitting else max(fitting))
    assert (every == 0) == (memory >= 46), "the plan without needs 42 GiB of the 44 that are left of 46"


def test_a_stated_number_is_kept_and_a_machine_too_small_is_planned_with_every_layer(outline: ModelOutline) -> None:
    assert fit_memory(outline, on_gpu(8, trainer_recompute_every=4), ROW, 400 * GIB).plan.recompute_every == 4
    fit = fit_memory(outline, on_gpu(), ROW, 80 * GIB)
    assert not fit.is_enough and fit.plan.recompute_every == 1
    assert fits(outline, on_gpu(8), ROW, 80 * GIB) and fits(outline, on_gpu(8), ROW, 80 * GIB, reshard_after_forward=False)
    assert not fits(outline, on_gpu(8), ROW, 26 * GIB, reshard_after_forward=False)


def test_one_gpu_of_80_gb_gets_every_kind_of_remedy_mildest_first(outline: ModelOutline) -> None:
    cfg = on_gpu(trainer_recompute_every=0)
    cfg.sft.optimizer = "adamw"
    room = usable(80 * GIB, "cuda")
    tried = remedies(outline, cfg, rows, room, num_devices=8)
    for remedy in tried:
        assert fits(outline, changed(cfg, remedy), rows(changed(cfg, remedy)), 80 * GIB), remedy
    assert all(not set(one) < set(two) and not set(two) < set(one) for one, two in combinations(tried, 2))
    assert tried[0] == ("trainer.strategy=fsdp", "trainer.cpu_offload=true")
    assert ("trainer.recompute_every=auto", "sft.optimizer=adamw8bit") in tried, "the only full one on a single card"
    assert ("tuning=lora",) in tried and ("tuning=qlora",) in tried
    harsh = ["tuning=" in " ".join(remedy) for remedy in tried]
    assert harsh == sorted(harsh)


def test_remedies_go_together_with_what_is_sharded(outline: ModelOutline) -> None:
    cfg = on_gpu(2)
    room = usable(48 * GIB, "cuda")
    tried = [" ".join(remedy) for remedy in remedies(outline, cfg, rows, room, num_devices=2)]
    assert "sft.optimizer=adamw8bit-torchao" in tried and not any("=adamw8bit " in f"{remedy} " for remedy in tried)
    cfg.sft.optimizer = "muon"
    tried = [" ".join(remedy) for remedy in remedies(outline, cfg, rows, usable(40 * GIB, "cuda"), num_devices=2)]
    assert "tuning=lora sft.optimizer=adamw" in tried


def test_shorter_rows_help_where_recomputing_is_switched_off(outline: ModelOutline) -> None:
    cfg = on_gpu(8, trainer_recompute_every=0)
    room = usable(40 * GIB, "cuda")
    tried = remedies(outline, cfg, rows, room, num_devices=8)
    assert ("trainer.recompute_every=auto",) in tried and ("sft.max_tokens=3072",) in tried


def test_what_is_said_names_bytes_row_and_remedies(outline: ModelOutline) -> None:
    with pytest.raises(UserError) as error:
        require_fit(outline, on_gpu(), lambda cfg: ROW, 80 * GIB, num_devices=1)
    lines = str(error.value).splitlines()
    assert "needs 113" in lines[0] and "of its 80.0 GiB, 76.6" in lines[0]
    assert any(line.split() == ["optimizer", "states", "56.7", "GiB"] for line in lines)
    assert any("a row of 4,096 tokens: step 7 packs 9 examples" in line for line in lines)
    assert sum(line.startswith("try: ") for line in lines) >= 4
    nothing = misfit(fit_memory(outline, on_gpu(), ROW, 2 * GIB), [])
    assert "try:" not in nothing and "smaller model" in nothing


def test_the_memory_of_a_cpu_is_not_planned_unless_it_is_stated() -> None:
    assert device_memory(config().trainer) is None
    assert device_memory(config(trainer_device_memory_gib=1.5).trainer) == 1.5 * GIB
