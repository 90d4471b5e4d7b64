"""A checkpoint as a model folder, so that it can be evaluated like any other model."""

from __future__ import annotations

from pathlib import Path

from dgr_lightning.config import Config
from dgr_lightning.distributed.ranks import Ranks
from dgr_lightning.training import tuning
from dgr_lightning.training.checkpoints import Checkpoints
from dgr_lightning.training.export import export


def write_checkpoint_model(checkpoints: Path, step: int, base_folder: Path, cfg: Config, folder: Path) -> None:
    """Writes the model of a checkpoint as a Hugging Face folder, as a training writes its last one. On the CPU.

    Args:
        checkpoints: folder of the run's checkpoints, which no training writes into meanwhile.
        step: of the checkpoint.
        base_folder: the model that was trained.
        cfg: the training's config.
        folder: to write; it appears when it is complete.

    Raises:
        UserError: the checkpoint is damaged, or of another model.
    """
    from dgr_lightning.models.chat import Chat

    model = tuning.load(base_folder, cfg.tuning, cfg.trainer.precision, "cpu", cfg.seed, cfg.model.trust_remote_code)
    Checkpoints(checkpoints, Ranks()).load(step, model, None)
    chat = Chat.load(
        base_folder,
        cfg.model.chat_style,
        cfg.model.trust_remote_code,
        cfg.model.system_prompt,
        cfg.model.template_args,
        cfg.model.think_marks,
    )
    card = f"# A checkpoint\n\nThe model after {step} optimizer steps of a training that went on.\n"
    export(model, base_folder, folder, Ranks(), card, chat.identity)
