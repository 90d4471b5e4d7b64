"""Several ranks are one training: the same losses and weights, on gloo, as the real launcher starts them."""

import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from dgr_lightning.config import Config, TrainerConfig
from dgr_lightning.distributed.launch import run_ranks
from dgr_lightning.distributed.ranks import Ranks
from dgr_lightning.models.chat import Chat
from dgr_lightning.training import checkpoints
from dgr_lightning.training.fit import TrainingResult
from tests.helpers.rank_trainings import ROWS, STEPS, config, train, train_all
from tests.helpers.ranks import on_two_ranks
from tests.helpers.trainings import curve, exported, no_space, save_base

FAMILIES: dict[str, tuple[str, dict]] = {
    "qwen3-tied": ("Qwen3", {"tie_word_embeddings": True, "head_dim": 8}),
    "qwen2-untied": ("Qwen2", {"tie_word_embeddings": False}),
    "llama-untied": ("Llama", {"tie_word_embeddings": False}),
}


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
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-3, atol=1e-5, msg=name)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {family: save_base(tmp_path_factory.mktemp(family), name, **changes) for family, (name, changes) in FAMILIES.items()}


def wait_for(run_dir: Path, step: int) -> None:
    """Waits for a checkpoint, which is written while training goes on."""
    while not (run_dir / "checkpoints" / f"step-{step:08}").is_dir():
        time.sleep(0.01)


def stop(base: Path, cfg: Config, run_dir: Path) -> None:
    """Trains until behind step 8, where the checkpoint of step 5 is whole, in several files of every rank."""
    checkpoints._FILE_BYTES = 4096

    def probe(model, step: int) -> dict[str, float]:
        if step >= 8:
            wait_for(run_dir, 5)
        return no_space(model, step)

    cfg.trainer.checkpoint_every, cfg.probes.every = 5, 8
    with pytest.raises(OSError, match="no space left"):
        train(base, cfg, run_dir, probe)


def stop_and_train_all(stopped: list[tuple[Path, Config, Path]], trainings: list[tuple[Path, Config, Path]]) -> list:
    """All in the same ranks; see `train_all`."""
    for training in stopped:
        stop(*training)
    return train_all(trainings)


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
    for name, cfg in (
        ("fsdp", config("fsdp", rows)),
        ("ddp", config("ddp", rows)),
        ("split", config("fsdp", rows, tensor_parallel=2, recompute_every=1)),
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


def killed_once(base: Path, cfg: Config, folder: Path) -> TrainingResult:
    """Trains undisturbed, and then once more, where rank 1 is killed in the middle of step 12, once."""

    def probe(model, step: int) -> dict[str, float]:
        flag = folder / "killed"
        if step == 12 and os.environ["RANK"] == "1" and not flag.exists():
            wait_for(folder / "killed-once", 10)
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return {"probe/refusal_rate": 0.5}

    if not (folder / "undisturbed" / "model").exists():
        train(base, cfg, folder / "undisturbed")
    return train(base, cfg, folder / "killed-once", probe)


@pytest.mark.slow
def test_a_rank_is_killed_and_the_training_goes_on_by_itself_and_exactly(bases: dict[str, Path], tmp_path: Path) -> None:
    cfg = config("fsdp", checkpoint_every=5)
    cfg.probes.every = 4
    function = partial(killed_once, bases["qwen2-untied"], cfg, tmp_path)
    result = run_ranks(function, 2, num_threads=1, max_restarts=1)
    assert (tmp_path / "killed").exists() and result.resumed_from_step == 10
    assert curve(tmp_path / "killed-once") == curve(tmp_path / "undisturbed")
    found, expected = exported(tmp_path / "killed-once"), exported(tmp_path / "undisturbed")
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


def step_on_wide_layers(ranks: Ranks, folder: Path, rows: Path, out: Path) -> dict[str, float]:
    """Shards a folder of the real widths, makes a step on its layers from a real example, and exports it.

    Embeddings and output layer are frozen: their gradients alone would not fit into this machine's memory twice.
    """
    import json

    from dgr_lightning.distributed.fsdp import shard
    from dgr_lightning.models.weights import empty_model
    from dgr_lightning.training.export import export
    from dgr_lightning.training.loss import TargetLoss
    from dgr_lightning.training.packing import collate

    trainer = TrainerConfig(accelerator="cpu", strategy="fsdp", devices=2)
    model = empty_model(folder)
    for module in (model.get_input_embeddings(), model.get_output_embeddings()):
        module.requires_grad_(False)
    shard(model, folder, trainer, "bf16", torch.device("cpu"))
    local = sum(weight.to_local().numel() for weight in model.parameters())
    row = json.loads(rows.read_text())[0]
    trace, _, answer = row["response"].removeprefix("<think>").partition("</think>")
    encoded = Chat.load(folder).encode(row["question"], trace.strip()[:200], answer.strip()[:100], 512)
    target_loss = TargetLoss(model.eval())
    summed = target_loss(collate([encoded]))
    summed.backward()
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=1e-2)
    optimizer.step()
    export(model, folder, out, ranks, "a card")
    num_targets = len(encoded.ids) - encoded.num_prompt
    return {"loss": summed.item() / num_targets, "local": local, "isolates_documents": target_loss.isolates_documents}


@pytest.mark.slow
@pytest.mark.skipif("DGR_WIDE" not in os.environ, reason="$DGR_WIDE is not set: two minutes of page faults, and 17 GB")
def test_a_folder_of_the_7b_widths_goes_through_shards_and_back(wide_folder: Path, shared: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    from dgr_lightning.models.folder import weight_files
    from dgr_lightning.models.weights import load_model

    rows = shared / "data" / "star1" / "STAR-1.json"
    figures = on_two_ranks(step_on_wide_layers, wide_folder, rows, tmp_path / "model")
    assert 8 < figures["loss"] < 40 and figures["isolates_documents"]

    def stored(folder: Path) -> dict[str, torch.Tensor]:
        tensors = {}
        for path in weight_files(folder, "folder"):
            with safe_open(path, framework="pt") as file:
                tensors |= {name: file.get_slice(name)[:8] for name in file.keys()}  # noqa: SIM118 (no mapping)
        return tensors

    before, after = stored(wide_folder), stored(tmp_path / "model")
    assert after.keys() == before.keys()
    for name, weight in before.items():
        assert after[name].dtype == torch.bfloat16
        frozen = "embed_tokens" in name or "lm_head" in name
        assert torch.equal(after[name], weight) or not frozen, name
    moved = [name for name, weight in before.items() if not torch.equal(after[name], weight)]
    assert any("layers.0.mlp.up_proj" in name for name in moved) and any("layers.1" in name for name in moved)
    model = load_model(tmp_path / "model", "bf16", "cpu")
    num_weights = sum(weight.numel() for weight in model.parameters())
    assert num_weights > 1.5e9 and figures["local"] == pytest.approx(num_weights / 2, rel=0.01)
