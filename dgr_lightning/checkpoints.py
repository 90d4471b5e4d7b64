"""What training leaves on disk: checkpoints to resume from, and the trained model as a Hugging Face folder.

Both appear under their final names only when they are whole; whatever a crash leaves half-written has another name and is
deleted by the next run.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from dgr_lightning.model_folder import CODE_FILES, MODEL_FILES, weight_files

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PARTIAL = ".partial"


class Checkpoints:
    """The checkpoints of a run, `step-<optimizer steps>.ckpt`: only the last whole one is kept."""

    def __init__(self, folder: Path) -> None:
        """Names the folder, which need not exist; what an earlier process left half-written in it is deleted."""
        self._folder = folder
        for leftover in folder.glob(f"*{PARTIAL}"):
            leftover.unlink()

    def latest(self) -> tuple[int, Path] | None:
        """Returns step and file of the last whole checkpoint; None before the first."""
        found = [
            (int(match[1]), path) for path in self._folder.glob("*") if (match := re.fullmatch(r"step-(\d+)\.ckpt", path.name))
        ]
        return max(found, default=None)

    def path(self, step: int) -> Path:
        """Returns the file of a step's checkpoint."""
        return self._folder / f"step-{step:08d}.ckpt"

    def forget_before(self, step: int) -> None:
        """Deletes the checkpoints of earlier steps."""
        for path in self._folder.glob("step-*.ckpt"):
            if path.name < self.path(step).name:
                path.unlink()


class WholeFileIO(TorchCheckpointIO):
    """Lightning's reading and writing of checkpoints, written straight to disk.

    Lightning's own makes two copies of a checkpoint in memory before it writes: 170 GB for a model of 7B parameters.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None) -> None:
        """Writes a checkpoint; `path` appears when all of it is on the disk."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + PARTIAL)
        with open(partial, "wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)


def export(model: PreTrainedModel, base_folder: Path, folder: Path) -> None:
    """Writes a trained model as a Hugging Face folder that is the base's in everything but the values of its weights.

    Config, tokenizer, chat template, generation settings and code are the base folder's files, byte for byte; the weights are
    safetensors in the base's type. The model itself is cast to that type.

    Args:
        model: trained weights, in any type, on any device.
        base_folder: where it was loaded from.
        folder: appears when it is complete; one that exists is replaced.
    """
    from transformers import GenerationConfig

    partial = folder.with_name(folder.name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    torch.nn.Module.to(model, stored_dtype(base_folder))
    # The base's settings may be ones that transformers refuses to write; its file is copied below.
    model.generation_config = GenerationConfig()
    with _quiet_saving():
        model.save_pretrained(partial)
    (partial / "generation_config.json").unlink(missing_ok=True)
    for pattern in (*MODEL_FILES, *CODE_FILES):
        if "safetensors" not in pattern:
            for file in base_folder.glob(pattern):
                shutil.copyfile(file, partial / file.name)
    for file in partial.iterdir():
        with open(file, "rb") as written:
            os.fsync(written.fileno())
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(partial, folder)


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


@contextmanager
def _quiet_saving() -> Iterator[None]:
    """Keeps transformers' progress bar of saving off the screen."""
    from transformers.utils import logging

    had_bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if had_bars:
            logging.enable_progress_bar()
