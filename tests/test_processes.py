"""Modules of this project in child processes: found from anywhere, without putting libraries before Python's own."""

import os

from dgr_lightning import processes
from tests.helpers.runs import ROOT


def test_a_checkout_is_put_on_the_path_of_a_child_before_the_users_own(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    command, environment = processes.python_module("dgr_lightning.example", "one")
    assert command[1:] == ["-P", "-m", "dgr_lightning.example", "one"]
    assert environment["PYTHONPATH"] == os.pathsep.join([str(ROOT), "/elsewhere"])


def test_an_installed_package_is_found_without_a_path_of_its_own(monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setattr(processes.sysconfig, "get_path", {"purelib": str(ROOT)}.get)
    assert "PYTHONPATH" not in processes.python_module("dgr_lightning.example")[1]
