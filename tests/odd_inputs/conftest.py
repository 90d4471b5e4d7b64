"""A world to run odd commands in, and the check that it is whole afterwards."""

import pytest

from tests.helpers.odd_inputs import World, check_ending, check_nothing_lost, enter, run


@pytest.fixture
def world(tmp_path, monkeypatch):
    world = World(tmp_path)
    enter(world, monkeypatch)
    return world


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
