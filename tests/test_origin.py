"""Where figures come from: the commit of this project, and of no other repository around it."""

import subprocess

import dgr_lightning
from dgr_lightning import origin


def repository(folder):
    folder.mkdir()
    for command in (["init", "-q"], ["-c", "user.name=n", "-c", "user.email=e", "commit", "-q", "--allow-empty", "-m", "one"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


def test_a_checkout_has_a_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(origin, "CHECKOUT", repository(tmp_path / "project").resolve())
    made = origin.origin()
    assert made.commit is not None and len(made.commit) >= 7
    assert "dgr_lightning" not in made.machine


def test_an_installed_package_has_its_version_instead(monkeypatch):
    monkeypatch.setattr(origin, "CHECKOUT", None)
    made = origin.origin()
    assert made.commit is None
    assert made.machine.endswith(f", dgr_lightning {dgr_lightning.__version__}")


def test_a_copy_inside_another_repository_does_not_take_its_commit(tmp_path, monkeypatch):
    copy = repository(tmp_path / "other") / "copy"
    copy.mkdir()
    monkeypatch.setattr(origin, "CHECKOUT", copy.resolve())
    assert origin.origin().commit is None
