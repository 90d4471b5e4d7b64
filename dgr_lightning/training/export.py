"""The trained model as a Hugging Face folder: the base's in everything but the values of its weights, and a card."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dgr_lightning.distributed.fsdp import whole_tensors
from dgr_lightning.distributed.ranks import Ranks
from dgr_lightning.files import whole_folder
from dgr_lightning.models.folder import CODE_FILES, MODEL_FILES, weight_files
from dgr_lightning.models.weights import empty_model, quiet_transformers
from dgr_lightning.training import tuning

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# As large as those of most models on the hub.
SHARD_SIZE = "5GB"


def export(model: PreTrainedModel, base_folder: Path, folder: Path, ranks: Ranks, card: str) -> None:
    """Writes a trained model to disk. Collective.

    Config, tokenizer, chat template, generation settings and code are the base folder's files, byte for byte; the weights are
    safetensors in the base's type, in shards where they are large. Adapters are added to the base's weights.

    Args:
        model: trained weights, in any type, on any device, sharded or not; or adapters beside frozen ones.
        base_folder: where it was loaded from.
        folder: appears when it is complete; one that exists is replaced.
        ranks: this process; the first one writes.
        card: text of the model card, `README.md`.
    """
    dtype = stored_dtype(base_folder)
    if not tuning.has_adapters(model):
        weights = whole_tensors(_stored(model), dtype, ranks)
    else:
        learned = tuning.adapters(model)
        merged = tuning.merged(learned, base_folder, dtype) if ranks.is_first else None
        weights = whole_tensors(_stored(merged), dtype, Ranks()) if merged is not None else {}
    if ranks.is_first:
        _write(weights, base_folder, folder, card)
    ranks.broadcast(None)  # nobody goes on before it is there


def stored_dtype(folder: Path) -> torch.dtype:
    """Returns the type in which most of a folder's weights are stored (some models keep a few in another)."""
    from safetensors import safe_open

    sizes: dict[torch.dtype, int] = {}
    names = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}
    for file in weight_files(folder, str(folder)):
        with safe_open(file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 (no mapping)
                piece = weights.get_slice(name)
                dtype = names.get(piece.get_dtype())
                if dtype is not None:
                    sizes[dtype] = sizes.get(dtype, 0) + int(torch.Size(piece.get_shape()).numel())
    return max(sizes, key=lambda dtype: sizes[dtype])


def _stored(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Yields what a folder holds of a model, each tensor once: tied weights have one name."""
    persistent = model.state_dict().keys()
    yield from model.named_parameters()
    yield from ((name, buffer) for name, buffer in model.named_buffers() if name in persistent)


def _write(weights: dict[str, Tensor], base_folder: Path, folder: Path, card: str) -> None:
    from transformers import GenerationConfig

    shell = empty_model(base_folder, trust_remote_code=True)  # its code ran when the model was loaded
    # The base's settings may be ones that transformers refuses to write; its file is copied below.
    shell.generation_config = GenerationConfig()
    with whole_folder(folder) as partial:
        with quiet_transformers():
            shell.save_pretrained(partial, state_dict=weights, max_shard_size=SHARD_SIZE)
        (partial / "generation_config.json").unlink(missing_ok=True)
        for pattern in (*MODEL_FILES, *CODE_FILES):
            if "safetensors" not in pattern:
                for file in base_folder.glob(pattern):
                    shutil.copyfile(file, partial / file.name)
        (partial / "README.md").write_text(card, encoding="utf-8")
