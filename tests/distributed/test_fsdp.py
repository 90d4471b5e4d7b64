"""Shards: how often they are gathered; a folder of the real widths is sharded, trained and exported."""

import os
from functools import partial
from pathlib import Path

import pytest
import torch

from dgr_lightning.config import TrainerConfig
from dgr_lightning.distributed.ranks import Ranks
from dgr_lightning.models.chat import Chat, Encoded
from tests.helpers.ranks import on_two_ranks
from tests.helpers.trainings import small_model


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
    export(model, folder, out, ranks, "a card", {"chat_style": "think"})
    num_targets = len(encoded.ids) - encoded.num_prompt
    return {"loss": summed.item() / num_targets, "local": local, "isolates_documents": target_loss.isolates_documents}


def gathers(ranks: Ranks, *, resharded: bool) -> tuple[int, float, list[float]]:
    """Returns all-gathers of a row's forward and backward passes, its loss, and the norms of the gradients."""
    from torch.distributed.tensor.debug import CommDebugMode

    from dgr_lightning.distributed.fsdp import full_tensor, shard, unsharded
    from dgr_lightning.training.loss import TargetLoss
    from dgr_lightning.training.packing import collate

    model = small_model("Qwen2", num_hidden_layers=3)
    trainer = TrainerConfig(accelerator="cpu", strategy="fsdp", devices=2, reshard_after_forward=resharded)
    shard(model, None, trainer, "fp32", torch.device("cpu"))
    target_loss = TargetLoss(model.train())
    with unsharded(model, "fp32") as whole, torch.no_grad():
        whole(input_ids=torch.arange(5)[None])  # in-training evaluation leaves behind what was there
    with CommDebugMode() as traffic:
        loss = target_loss(collate([Encoded(list(range(2, 42)), 3 + ranks.rank)]))
        loss.backward()
    count = sum(number for kind, number in traffic.get_comm_counts().items() if "allgather" in str(kind).replace("_", ""))
    norms = [full_tensor(weight.grad).norm().item() for weight in model.parameters() if weight.grad is not None]
    return count, loss.item(), norms


@pytest.mark.slow
def test_layers_that_stay_gathered_are_gathered_once_and_learn_the_same() -> None:
    twice, once = (on_two_ranks(partial(gathers, resharded=resharded)) for resharded in (True, False))
    # Three layers and the root; backward, the layers again.
    assert (once[0], twice[0]) == (4, 4 + 3)
    assert once[1:] == twice[1:]


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
