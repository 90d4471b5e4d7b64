"""A world to run odd commands in, and the check that it is whole afterwards."""

import pytest

from dgr_lightning.prompts import rendering
from tests.helpers.odd_inputs import World, check_ending, check_nothing_lost, enter, run


@pytest.fixture
def world(tmp_path, monkeypatch):
    world = World(tmp_path)
    enter(world, monkeypatch)
    return world


ENDLESS = ("ranges", "grows", "power")


@pytest.fixture(autouse=True)
def _little_patience(request, monkeypatch):
    """Has templates that never end cut off sooner than a user's."""
    if any(word in request.node.name for word in ENDLESS):
        monkeypatch.setattr(rendering, "SECONDS", 2.0)


@pytest.fixture
def ends(world, capsys):
    """Runs a command line in the world, and checks how it ends and that nothing was lost; returns what it printed."""

    def ends(command, arguments, code=2, parts=(), main=None, places=("cwd/runs", "cache")):
        before = world.state()
        outcome = run(command, [str(argument) for argument in arguments], capsys, main)
        check_ending(outcome, code, parts)
        check_nothing_lost(before, world.state(), places)
        return outcome

    return ends
