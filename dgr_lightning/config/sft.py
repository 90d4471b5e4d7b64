"""Keys of `sft`: the training recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from dgr_lightning.config.setting import NEVER, TRAINING, setting


@dataclass
class SftConfig:
    """The training recipe. All of it determines the trained model, except max_tokens, which suits the machine."""

    lr: float = setting(1e-5, "peak learning rate", above=0.0, high=1.0, hashed=TRAINING)
    epochs: int = setting(5, "passes over the set", low=1, hashed=TRAINING)
    max_steps: Optional[int] = setting(None, "stop after so many optimizer steps; null: epochs decides", low=1, hashed=TRAINING)
    batch_size: int = setting(8, "examples per optimizer step over all ranks", low=1, hashed=TRAINING)
    max_length: int = setting(16384, "tokens per example; truncate says what a longer one loses", low=8)
    truncate: str = setting(
        "trace",
        "of an example longer than max_length: the end of its trace, never its answer; left: its beginning, prompt first",
        choices=("trace", "left"),
        hashed=TRAINING,
        added=True,
    )
    append_eos: bool = setting(
        True, "train on the end token after the answer, so that the model learns to stop", hashed=TRAINING, added=True
    )
    max_tokens: int = setting(8192, "capacity of a packed row: memory, not recipe", low=8, hashed=NEVER)
    optimizer: str = setting(
        "adamw",
        "optimizer; adamw8bit and the paged ones are bitsandbytes' and cannot be sharded, muon takes the decoder's matrices",
        private=False,
        hashed=TRAINING,
    )
    betas: list[float] = setting(
        [0.9, 0.999], "AdamW's decay rates of the mean gradient and of the mean square", hashed=TRAINING, added=True
    )
    weight_decay: float = setting(1e-4, "decoupled weight decay on matrices", low=0.0, high=10.0, hashed=TRAINING)
    warmup_ratio: float = setting(
        0.1,
        "share of the steps over which the learning rate rises; after them it falls to zero on a cosine",
        low=0.0,
        high=1.0,
        hashed=TRAINING,
    )
    warmup_steps: Optional[int] = setting(
        None, "the same as a number of steps; null: warmup_ratio decides", low=0, hashed=TRAINING, added=True
    )
    loss_mean: str = setting(
        "tokens",
        "tokens: every target token of a step weighs the same; examples: every example does, whatever its length",
        choices=("tokens", "examples"),
        hashed=TRAINING,
        added=True,
    )
    clip_norm: float = setting(1.0, "largest norm of the gradient", above=0.0, hashed=TRAINING)
    select: Optional[str] = setting(
        None,
        "curve of the probes, such as probe/reasoning_accuracy: the weights of the step where it is highest become the "
        "model; null: those of the last step",
        private=False,
        hashed=TRAINING,
    )
