"""Several ranks are one training: the same losses and weights, on gloo, as the real launcher starts them."""

from functools import partial
from pathlib import Path

import pytest
import torch

from dgr_lightning.distributed.launch import run_ranks
from tests.helpers.rank_trainings import ROWS, STEPS, config, stop, stop_and_train_all, train, train_all
from tests.helpers.trainings import curve, exported, save_base

FAMILIES: dict[str, tuple[str, dict]] = {
    "qwen3-tied": ("Qwen3", {"tie_word_embeddings": True, "head_dim": 8}),
    "qwen2-untied": ("Qwen2", {"tie_word_embeddings": False}),
    "llama-untied": ("Llama", {"tie_word_embeddings": False}),
}


def rms(weight: torch.Tensor) -> float:
    return weight.square().mean().sqrt().item()


def assert_close(run_dir: Path, expected_dir: Path) -> None:
    """The same losses to 1e-5, and as good as the same weights."""
    losses = curve(expected_dir)
    assert list(losses) == list(range(1, STEPS + 1))
    assert curve(run_dir) == pytest.approx(losses, rel=1e-5)
    probed, expected_probed = (curve(folder, "probe/refusal_rate") for folder in (run_dir, expected_dir))
    assert probed == pytest.approx({step: expected_probed[step] for step in probed}, rel=1e-5) and {10, 20} <= probed.keys()
    assert curve(run_dir, "train/grad_norm") == pytest.approx(curve(expected_dir, "train/grad_norm"), rel=1e-4)
    found, expected = exported(run_dir), exported(expected_dir)
    assert found.keys() == expected.keys()
    # In the mean, not one by one: AdamW divides a gradient by its own size, and of one that is nearly zero, such as that of a
    # key's bias, it divides the rounding.
    for name, weight in expected.items():
        assert rms(found[name] - weight) <= 5e-4 * rms(weight) + 3e-5, name


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {family: save_base(tmp_path_factory.mktemp(family), name, **changes) for family, (name, changes) in FAMILIES.items()}


@pytest.mark.slow
def test_two_ranks_are_one_whatever_the_model_and_the_rows_and_either_goes_on_where_the_other_stopped(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    cases = [(family, rows) for family in bases for rows in ROWS]
    alone = [train(bases[family], config("single", rows), tmp_path / f"{family}-{rows}") for family, rows in cases]
    trainings = [
        (bases[family], config(strategy, rows, tensor_parallel=ways), tmp_path / f"{family}-{rows}-{strategy}{ways}")
        for family, rows in cases
        for strategy, ways in (("fsdp", 1), ("ddp", 1), ("fsdp", 2))
    ]
    family, rows = cases[0]
    base = bases[family]
    trainings += [(base, config("fsdp", rows, recompute_every=2), tmp_path / f"{family}-{rows}-recomputed")]
    trainings += [(base, config("fsdp", rows, reshard_after_forward=False), tmp_path / f"{family}-{rows}-gathered")]
    compiled = config("fsdp", rows, compile=True, recompute_every=2, reshard_after_forward=False)
    trainings += [(base, compiled, tmp_path / f"{family}-{rows}-compiled")]
    for name, cfg in (
        ("fsdp", config("fsdp", rows)),
        ("ddp", config("ddp", rows)),
        ("split", config("fsdp", rows, tensor_parallel=2, recompute_every=1)),
        ("compiled", config("fsdp", rows, compile=True)),
    ):
        resumed = tmp_path / f"{family}-{rows}-resumed_{name}"
        stop(base, config("single", rows), resumed)
        trainings += [(base, cfg, resumed)]
    stopped = [
        (base, config("fsdp", rows, tensor_parallel=ways), tmp_path / f"{family}-{rows}-stopped{ways}") for ways in (1, 2)
    ]
    results = run_ranks(partial(stop_and_train_all, stopped, trainings), 2, num_threads=1)
    for (_, _, run_dir), result in zip(trainings, results, strict=True):
        assert_close(run_dir, tmp_path / run_dir.name.rpartition("-")[0])
        assert result.target_tokens == alone[0].target_tokens
        assert result.resumed_from_step == (5 if "resumed" in run_dir.name else 0)
    for _, _, run_dir in stopped:
        assert len(list(run_dir.glob("checkpoints/step-00000005/*.safetensors"))) > 2
        assert train(base, config("single", rows), run_dir).resumed_from_step == 5
        assert_close(run_dir, tmp_path / f"{family}-{rows}")


@pytest.mark.slow
def test_copies_of_shards_and_a_rank_alone_are_one_too(bases: dict[str, Path], tmp_path: Path) -> None:
    """Four ranks that hold two copies in two shards (HSDP), two shards of split layers, or two copies of split layers; and one
    rank under the agent, as on a machine with one GPU.
    """
    base = bases["qwen3-tied"]
    train(base, config("single"), tmp_path / "here")
    ways = {"copies": {"shard_size": 2}, "split": {"tensor_parallel": 2}, "both": {"shard_size": 2, "tensor_parallel": 2}}
    trainings = [(base, config("fsdp", devices=4, **options), tmp_path / name) for name, options in ways.items()]
    run_ranks(partial(train_all, trainings), 4, num_threads=1)
    for name in ways:
        assert_close(tmp_path / name, tmp_path / "here")
    run_ranks(partial(train, base, config("single"), tmp_path / "alone"), 1, num_threads=1)
    assert curve(tmp_path / "alone") == curve(tmp_path / "here")


@pytest.mark.slow
def test_one_rank_of_fsdp_is_a_training_on_one_device_and_goes_on_where_that_stopped(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    base = bases["qwen2-untied"]
    train(base, config("single"), tmp_path / "single")
    stop(base, config("single"), tmp_path / "resumed")
    names = {"plain": {}, "resumed": {}, "bf16": {"precision": "bf16"}}
    trainings = [(base, config("fsdp", devices=1, **options), tmp_path / name) for name, options in names.items()]
    results = run_ranks(partial(train_all, trainings), 1, num_threads=1)
    assert [result.resumed_from_step for result in results] == [0, 5, 0]
    for name in ("plain", "resumed"):
        assert_close(tmp_path / name, tmp_path / "single")
    assert curve(tmp_path / "bf16") == pytest.approx(curve(tmp_path / "single"), rel=0.02)
