"""The bytes of a training on its disk, for a model of 7.616e9 weights in bf16 with AdamW, in GB."""

import pytest

from dgr_lightning.training.disk import TrainingDisk

WEIGHTS = 7_616_000_000


def gigabytes(*, num_before: int = 0, num_kept: int = 1, selects: bool = False, keep: bool = False) -> dict[str, float]:
    disk = TrainingDisk.of(WEIGHTS, WEIGHTS, 8, 2, keep_optimizer=keep)
    return {kind: size / 1e9 for kind, size in disk.peak(num_before, num_kept, selects=selects).items()}


def approx(**kinds: float) -> dict[str, float]:
    return {kind.replace("_", " "): pytest.approx(size, abs=0.1) for kind, size in kinds.items()}


def test_at_the_end_weights_and_the_exported_model_lie_there() -> None:
    assert gigabytes() == approx(the_last_checkpoint=30.5, the_exported_model=15.2)
    assert gigabytes(keep=True) == approx(the_last_checkpoint=91.4, the_exported_model=15.2)


def test_while_one_is_written_those_that_are_kept_lie_there() -> None:
    assert gigabytes(num_before=12) == approx(earlier_checkpoints=91.4, the_checkpoint_that_is_being_written=91.4)
    assert gigabytes(num_before=12, num_kept=3) == approx(
        earlier_checkpoints=3 * 91.4, the_checkpoint_that_is_being_written=91.4
    )
    assert gigabytes(num_before=1) == approx(earlier_checkpoints=91.4, the_last_checkpoint=30.5)
    assert gigabytes(selects=True) == approx(earlier_checkpoints=91.4, the_last_checkpoint=30.5, the_exported_model=15.2)


def test_the_model_alone_stays_behind_unless_checkpoints_are_kept() -> None:
    disk = TrainingDisk.of(WEIGHTS, WEIGHTS, 8, 2, keep_optimizer=True)
    assert disk.left(12, 1, keep_optimizer=False) == 2 * WEIGHTS
    assert disk.left(12, 2, keep_optimizer=True) == (2 + 12 + 12) * WEIGHTS


def test_adapters_are_small_and_their_model_is_not() -> None:
    disk = TrainingDisk.of(40_000_000, WEIGHTS, 8, 2, keep_optimizer=False)
    assert (disk.checkpoint, disk.last, disk.model) == (480_000_000, 160_000_000, 2 * WEIGHTS)
    assert disk.room_for_one_more() == 640_000_000 + 2 * WEIGHTS
