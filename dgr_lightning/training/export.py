"""Writes the trained model as a Hugging Face folder: the base model's with new weights, and a model card."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dgr_lightning.distributed.fsdp import collect_full_tensors
from dgr_lightning.distributed.ranks import Ranks
from dgr_lightning.files import whole_folder
from dgr_lightning.models.chat_record import write_record
from dgr_lightning.models.folder import CODE_FILES, MODEL_FILES, weight_files
from dgr_lightning.models.quiet_imports import quiet_transformers
from dgr_lightning.models.weights import empty_model
from dgr_lightning.training import adapters

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# The size of most models' shards on the hub.
SHARD_SIZE = "5GB"


def export(model: PreTrainedModel, base_folder: Path, folder: Path, ranks: Ranks, card: str, chat: Mapping[str, Any]) -> None:
    """Writes a trained model to disk. Collective.

    Config, tokenizer, chat template, generation settings and code are the base folder's files, byte for byte. The weights are
    safetensors in the base model's type, large ones in several files. Adapters are added to the base model's weights. Beside
    them lies a record of the chat format, by which the folder is prompted and parsed again as it was trained.

    Args:
        model: trained weights in any type, on any device, sharded or not; or adapters beside frozen weights.
        base_folder: the folder that it was loaded from.
        folder: the folder to write, which appears when it is complete and replaces an existing one.
        ranks: this process among the ranks; the first one writes.
        card: text of the model card, `README.md`.
        chat: `Chat.identity`, to be recorded.
    """
    dtype = stored_dtype(base_folder)
    if not adapters.has_adapters(model):
        weights = collect_full_tensors(_stored(model), dtype, ranks)
    else:
        learned = adapters.collect(model)
        merged = adapters.merge(learned, base_folder, dtype) if ranks.is_first else None
        weights = collect_full_tensors(_stored(merged), dtype, Ranks()) if merged is not None else {}
    if ranks.is_first:
        _write(weights, base_folder, folder, card, chat)
    ranks.broadcast(None)  # all ranks wait until the folder is complete


def stored_dtype(folder: Path) -> torch.dtype:
    """Returns the type of most of a folder's stored weights; some models keep a few in another."""
    from safetensors import safe_open

    sizes: dict[torch.dtype, int] = {}
    names = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}
    for file in weight_files(folder, str(folder)):
        with safe_open(file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 (not a mapping)
                piece = weights.get_slice(name)
                dtype = names.get(piece.get_dtype())
                if dtype is not None:
                    sizes[dtype] = sizes.get(dtype, 0) + int(torch.Size(piece.get_shape()).numel())
    return max(sizes, key=lambda dtype: sizes[dtype])


def _stored(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Yields the tensors that a folder stores of a model, tied weights once."""
    persistent = model.state_dict().keys()
    yield from model.named_parameters()
    yield from ((name, buffer) for name, buffer in model.named_buffers() if name in persistent)


def _write(weights: dict[str, Tensor], base_folder: Path, folder: Path, card: str, chat: Mapping[str, Any]) -> None:
    from transformers import GenerationConfig

    shell = empty_model(base_folder, trust_remote_code=True)  # its code has run already, when the model was loaded
    # transformers may refuse to write the base model's generation settings; their file is copied below.
    shell.generation_config = GenerationConfig()
    with whole_folder(folder) as partial:
        with quiet_transformers():
            shell.save_pretrained(partial, state_dict=weights, max_shard_size=SHARD_SIZE)
        (partial / "generation_config.json").unlink(missing_ok=True)
        for pattern in (*MODEL_FILES, *CODE_FILES):
            if "safetensors" not in pattern:
                for file in base_folder.glob(pattern):
                    shutil.copyfile(file, partial / file.name)
        write_record(partial, chat)  # over that of a base which is an exported model itself
        (partial / "README.md").write_text(card, encoding="utf-8")
