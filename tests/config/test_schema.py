"""From plain values to a typed config: every key is held to its type and range."""

import re
from dataclasses import dataclass

import pytest

from dgr_lightning.cli.registries import members
from dgr_lightning.config.keys import keys
from dgr_lightning.config.schema import build, defaults, section
from dgr_lightning.config.setting import AUTO, Auto, setting
from dgr_lightning.errors import UserError


@pytest.mark.parametrize("key", keys())
def test_every_key_refuses_what_it_is_not(key):
    """No key takes a list of lists."""
    plain = defaults()
    *sections, name = key.split(".")
    section = plain
    for part in sections:
        section = section[part]
    section[name] = [[1]]
    with pytest.raises(UserError, match=rf"^{re.escape(key)}=\[\[1\]\]: expected "):
        build(plain, members())


@dataclass
class Cadence:
    """A section with a key that is a number, or the project's choice."""

    every: int | Auto = setting(AUTO, "steps between", low=0)


@pytest.mark.parametrize(("given", "value"), [("auto", "auto"), (3, 3), ("3", 3)])
def test_a_key_may_be_a_number_or_auto(given, value):
    assert section(Cadence, {"every": given}, "", {}).every == value


@pytest.mark.parametrize("given", [-1, "often", None, True])
def test_such_a_key_refuses_anything_else_and_says_so(given):
    with pytest.raises(UserError, match=r"expected a whole number at least 0, or auto \(steps between\)"):
        section(Cadence, {"every": given}, "", {})
