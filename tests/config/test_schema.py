"""From plain values to a typed config: every key is held to its type and range."""

import re

import pytest

from dgr_lightning.cli.registries import members
from dgr_lightning.config.keys import keys
from dgr_lightning.config.schema import build, defaults
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
