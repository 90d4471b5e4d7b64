"""How long outputs to a task are expected to be."""

from dgr_lightning.tasks.expected_tokens import TYPICAL_TOKENS, expected_tokens
from dgr_lightning.tasks.registry import TASKS
from dgr_lightning.tasks.task import LENGTHS


def test_every_kind_of_outputs_has_a_typical_length_which_a_budget_cuts() -> None:
    assert list(TYPICAL_TOKENS) == list(LENGTHS) and sorted(TYPICAL_TOKENS.values()) == list(TYPICAL_TOKENS.values())
    math, refusals = TASKS["math500"], TASKS["strongreject"]
    assert expected_tokens(refusals, 8192) < expected_tokens(math, 8192) and expected_tokens(math, 160) == 160
