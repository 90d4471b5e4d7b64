"""Where the project lies, and what its commands are called there."""

import sys
from pathlib import Path

import pytest

from dgr_lightning import installation
from dgr_lightning.installation import CHECKOUT, CONF, command_line, script_name
from tests.helpers.runs import ROOT


def test_a_checkout_is_found_with_its_conf():
    assert (CHECKOUT, CONF) == (ROOT, ROOT / "conf")


@pytest.mark.parametrize(
    ("started", "name", "line"),
    [
        ("train.py", "refine.py", "python refine.py"),
        ("/somewhere/evaluate.py", "refine.py", "python refine.py"),
        ("/somewhere/bin/dgr-train", "dgr-refine", "dgr-refine"),
        ("dgr-evaluate.exe", "dgr-refine", "dgr-refine"),
        ("pytest", "refine.py", "python refine.py"),
        ("-c", "refine.py", "python refine.py"),
    ],
)
def test_commands_are_called_as_the_user_started_one(monkeypatch, started, name, line):
    monkeypatch.setattr(sys, "argv", [started, "seed=1"])
    assert (script_name("refine"), command_line("refine")) == (name, line)


@pytest.mark.parametrize(("started", "name"), [("notebook", "dgr-train"), ("/mine/train.py", "train.py")])
def test_without_a_command_an_installed_package_names_its_own(monkeypatch, started, name):
    monkeypatch.setattr(installation, "CHECKOUT", None)
    monkeypatch.setattr(sys, "argv", [started])
    assert script_name("train") == name


def test_the_scripts_of_the_checkout_have_these_names():
    assert all((ROOT / Path(script_name(command))).is_file() for command in ("train", "refine", "evaluate", "compare"))
