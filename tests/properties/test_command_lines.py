"""Overrides: any text is a setting of a key, or one message; and so is a valid override after any change to it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dgr_lightning.cli.compose import compose
from dgr_lightning.config import Config
from dgr_lightning.config.keys import keys
from dgr_lightning.errors import UserError
from tests.fuzz.overrides import SEEDS, check, check_line
from tests.helpers.strategies import TEXTS, damaged

GROUPS = st.sampled_from(["model", "data", "refine", "tuning", "sft", "data.keep.a", "hydra.x"])
KEYS = st.one_of(st.sampled_from(sorted(keys())), GROUPS)
_PLAIN = (
    "1 0 -1 1e-3 .5 1e999 nan inf true null '' a [] [1,2] [a] {} {a:1} {a:{b:c}} ??? ${seed} ${name} 1,2 range(3) choice(1)"
)
PLAIN = st.sampled_from(_PLAIN.split(" "))
NUMBERS = st.one_of(st.integers(), st.floats()).map(str)
OVERRIDES = st.tuples(st.sampled_from(["", "+", "++", "~"]), KEYS, st.just("="), st.one_of(PLAIN, NUMBERS, TEXTS)).map("".join)


@given(st.lists(st.one_of(OVERRIDES, TEXTS, st.sampled_from(["-m", "--cfg", "-p"])), min_size=1, max_size=3))
@settings(max_examples=150)
def test_any_command_line_is_read_or_one_message(arguments):
    check_line([argument for argument in arguments if "\0" not in argument])


@given(st.sampled_from(SEEDS).flatmap(damaged))
@settings(max_examples=150)
def test_a_changed_command_line_is_read_or_one_message(content):
    check(content)


@pytest.mark.slow
@given(st.lists(OVERRIDES, min_size=1, max_size=2))
@settings(max_examples=60)
def test_any_overrides_compose_to_a_config_or_one_message(overrides):
    try:
        assert isinstance(compose("train", overrides), Config)
    except UserError as error:
        assert str(error).strip()
