"""The memory plan against what a training really takes on the CPU, by torch's own allocator."""

from pathlib import Path

import pytest
import torch

from dgr_lightning.config import TuningConfig
from dgr_lightning.training import tuning
from dgr_lightning.training.loss import TargetLoss
from dgr_lightning.training.memory import ACTIVATIONS, COPIES, STATES, WEIGHTS, MemoryPlan, RowSize, memory_plan
from dgr_lightning.training.memory_sizes import ModelOutline
from dgr_lightning.training.packing import LargestRow, collate
from tests.helpers.measured_memory import Measured, documents, measure
from tests.helpers.ranks import on_two_ranks
from tests.helpers.trainings import config, save_base

WIDE = {
    "hidden_size": 128,
    "intermediate_size": 320,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}
FAMILIES = {
    "Qwen2": {"tie_word_embeddings": False},
    "Qwen3": {"tie_word_embeddings": True, "head_dim": 32},
    "Llama": {"tie_word_embeddings": False},
}
LENGTHS = [300, 150, 250, 100, 180]
"""Documents on both sides of the lengths at which attention changes its way on a CPU."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {family: save_base(root / family, family, **WIDE, **changes) for family, changes in FAMILIES.items()}


def both(folder: Path, recompute_every: int = 0, lengths: list[int] = LENGTHS, **changes) -> tuple[MemoryPlan, Measured]:
    cfg = config(tuning_rank=8, **changes)
    largest = LargestRow(documents(lengths), 1, several=False)
    row = RowSize(largest.lengths, largest.num_targets, several=False)
    plan = memory_plan(ModelOutline.of_folder(folder), cfg, row, recompute_every)
    return plan, measure(folder, cfg, lengths, recompute_every)


slow = pytest.mark.slow
CASES = [
    pytest.param(family, method, precision, every, marks=() if (family, method, every) == ("Qwen3", "full", 0) else slow)
    for family in FAMILIES
    for method in ("full", "lora", "qlora")
    for every in (0, 1)
    for precision in (("bf16", "fp32") if (family, method) == ("Qwen2", "full") else ("bf16",))
]


@pytest.mark.parametrize(("family", "method", "precision", "every"), CASES)
def test_the_plan_is_what_a_step_takes(folders, family: str, method: str, precision: str, every: int) -> None:
    plan, real = both(folders[family], every, tuning_method=method, trainer_precision=precision)
    assert plan.bytes[WEIGHTS] == pytest.approx(real.weights, rel=0.01)
    assert plan.bytes[STATES] == pytest.approx(real.states, rel=0.01)
    assert plan.total == pytest.approx(max(real.passes, real.step), rel=0.1)


def test_recomputing_every_second_layer_is_between_all_and_none(folders) -> None:
    plans = [both(folders["Qwen3"], every, trainer_precision="bf16") for every in (1, 2)]
    assert plans[1][0].total == pytest.approx(plans[1][1].passes, rel=0.1)
    assert plans[0][0].bytes[ACTIVATIONS] < plans[1][0].bytes[ACTIVATIONS]


@pytest.mark.parametrize("optimizer", ["adamw", "adamw8bit", "muon"])
def test_a_short_row_leaves_weights_gradients_and_states(folders, optimizer: str) -> None:
    plan, real = both(folders["Llama"], lengths=[20], sft_optimizer=optimizer)
    assert plan.bytes[STATES] == pytest.approx(real.states, rel=0.05)
    assert plan.total == pytest.approx(max(real.passes, real.step), rel=0.1)


@pytest.mark.parametrize("compute", ["autocast", "bf16", "fp32"])
def test_layers_keep_what_saved_tensors_hooks_see(folders, compute: str) -> None:
    """The trace of a layer, without values, against two layers of the model with them."""
    outline = ModelOutline.of_folder(folders["Qwen2"])
    row = collate(documents(LENGTHS))
    footprint = outline.footprint(TuningConfig(), compute, tuple(row["document_lengths"]), on_gpu=False)
    kept = {number: _saved(folders["Qwen2"], number, row, compute) for number in (2, 4)}
    assert footprint.saved + footprint.copies == pytest.approx((kept[4] - kept[2]) / 2, rel=0.02)


def _saved(folder: Path, num_layers: int, row, compute: str) -> int:
    """Bytes of the storages that a forward pass saves, weights left out."""
    model = tuning.load(folder, TuningConfig(), "fp32", "cpu", 0)
    del model.model.layers[num_layers:]
    model.config.num_hidden_layers = num_layers
    loss = TargetLoss(model)
    if compute == "bf16":
        model.to(torch.bfloat16)
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=compute == "autocast"),
    ):
        total = loss(row)
    kept = sum(storage.nbytes() for place, storage in storages.items() if place not in weights)
    del total
    return kept


def measure_all(ranks, folder: Path, cases: list) -> list[tuple[int, int]]:
    """Planned and real bytes of trainings in two ranks, of the first of them."""
    both_bytes = []
    for every, lengths in cases:
        changes = {"trainer_strategy": "fsdp", "trainer_devices": 2, "trainer_precision": "bf16"}
        plan, real = both(folder, every, lengths, **changes)
        both_bytes.append((plan.total, max(real.passes, real.step)))
    return both_bytes


@slow
def test_the_plan_is_what_a_step_takes_on_each_of_two_ranks(tmp_path: Path) -> None:
    wide = WIDE | {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 6}
    folder = save_base(tmp_path / "model", "Qwen2", tie_word_embeddings=False, **wide)
    for planned, real in on_two_ranks(measure_all, folder, [(0, [300, 150]), (1, [300, 150]), (0, [20])]):
        assert planned == pytest.approx(real, rel=0.15)


@pytest.fixture(scope="module")
def seven_billion() -> ModelOutline:
    """DeepSeek-R1-Distill-Qwen-7B."""
    from transformers import AutoConfig

    from benchmarks.memory_table import MODELS, QWEN2

    return ModelOutline(AutoConfig.for_model(**QWEN2 | MODELS["7B"]))


def on_gpus(devices: int, **changes) -> MemoryPlan:
    cfg = config(trainer_accelerator="cuda", trainer_precision="bf16", trainer_devices=devices, **changes)
    cfg.trainer.strategy = "fsdp" if devices > 1 else "single"
    return cfg


def test_a_7b_on_gpus_keeps_262_and_226_kilobytes_a_token_and_layer(seven_billion) -> None:
    """Measured with `saved_tensors_hooks` on layers of these widths, under autocast and as FSDP computes."""
    for compute, kilobytes in (("autocast", 262), ("bf16", 226)):
        footprint = seven_billion.footprint(TuningConfig(), compute, (1024,), on_gpu=True)
        assert footprint.saved / 1024 == pytest.approx(1000 * kilobytes, rel=0.05)


def test_a_7b_needs_what_was_estimated_on_one_gpu_and_on_eight(seven_billion) -> None:
    row = RowSize((4096,), 4096, several=False)
    peaks = {
        (1, "adamw", 0): 129,
        (1, "adamw", 1): 116,
        (1, "adamw8bit", 0): 87,
        (1, "adamw8bit", 1): 73,
        (8, "adamw", 0): 42,
    }
    for (devices, optimizer, every), gib in peaks.items():
        plan = memory_plan(seven_billion, on_gpus(devices, sft_optimizer=optimizer), row, every)
        assert plan.total / 2**30 == pytest.approx(gib, rel=0.05), (devices, optimizer, every)


def test_what_shards_gathers_and_moves_weights_is_counted(seven_billion) -> None:
    row = RowSize((4096,), 4096, several=False)
    sharded = memory_plan(seven_billion, on_gpus(8), row, 1)
    assert sharded.bytes[WEIGHTS] == pytest.approx(4 * 7.616e9 / 8, rel=0.01)
    gathered = memory_plan(seven_billion, on_gpus(8), row, 1, reshard_after_forward=False)
    assert gathered.bytes[COPIES] == pytest.approx(2 * 7.616e9, rel=0.01) and gathered.total > sharded.total
    offloaded = memory_plan(seven_billion, on_gpus(8, trainer_cpu_offload=True), row, 1)
    assert offloaded.bytes[WEIGHTS] == offloaded.bytes[STATES] == 0
    assert offloaded.host == pytest.approx(16 * 7.616e9 / 8, rel=0.01) and offloaded.total < sharded.total
    copies = memory_plan(seven_billion, on_gpus(8, trainer_shard_size=4), row, 1)
    assert copies.bytes[WEIGHTS] == pytest.approx(2 * sharded.bytes[WEIGHTS], rel=0.01)
    split = memory_plan(seven_billion, on_gpus(8, trainer_tensor_parallel=4), row, 0)
    assert split.total < memory_plan(seven_billion, on_gpus(8), row, 0).total
    several = memory_plan(seven_billion, on_gpus(1), RowSize((4096,), 4096, several=True), 1)
    assert several.total > memory_plan(seven_billion, on_gpus(1), row, 1).total, "gradients stay from row to row"
