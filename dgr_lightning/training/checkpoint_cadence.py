"""When a checkpoint is due: every so many optimizer steps, or, with `trainer.checkpoint_every=auto`, by the clock.

The clock may decide, because a checkpoint determines nothing: from whichever a training resumes, it ends in the same weights.
`auto` bounds what a crash costs and what checkpoints cost: at most `MOST_SECONDS_LOST` of work are lost, unless checkpoints as
close as that would take more than `MOST_SHARE` of the time. A training that is shorter has the one at its end alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from dgr_lightning.config.setting import AUTO, Auto

MOST_SECONDS_LOST = 600.0
MOST_SHARE = 0.02


@dataclass(frozen=True)
class Times:
    """What is known of time when a step begins, in seconds.

    Attributes:
        since: from the beginning of the latest checkpoint of this process, or else of its training.
        held_up: for how long the latest one kept the training from its next step; 0 before the first.
        to_write: from its beginning until it was complete; 0 before the first.
    """

    since: float
    held_up: float = 0.0
    to_write: float = 0.0


def seconds_between(times: Times) -> float:
    """Returns how far apart `auto` takes checkpoints; the next one never waits for the latest to be written."""
    return max(MOST_SECONDS_LOST, times.held_up / MOST_SHARE, 2 * times.to_write)


def is_due(every: int | Auto, step: int, num_steps: int, times: Times) -> bool:
    """Returns whether a checkpoint follows a step.

    Args:
        every: `trainer.checkpoint_every`; 0 for the end alone.
        step: of the training, counted from 1.
        num_steps: of the whole training, whose last step is always followed by one.
        times: when the step begins; only `auto` reads them.
    """
    if step == num_steps:
        return True
    if every == AUTO:
        return times.since >= seconds_between(times)
    return every > 0 and step % every == 0
