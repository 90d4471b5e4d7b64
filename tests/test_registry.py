"""Registries: members are files of a package, or are named from outside; what cannot be found is one message."""

import re

import pytest

from dgr_lightning.errors import UserError
from dgr_lightning.hashes import file_hash
from dgr_lightning.registry import Registry


@pytest.fixture
def shapes(tmp_path, monkeypatch):
    package = tmp_path / "shapes"
    (package / "polygon").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "_private.py").write_text("raise RuntimeError")
    (package / "notes.txt").touch()
    (package / "not_imported.py").write_text("raise RuntimeError('imported without need')")
    (package / "big_circle.py").write_text("SHAPE = 'a circle'")
    (package / "polygon" / "__init__.py").write_text("SHAPE = 'a polygon'")
    (tmp_path / "spiral.py").write_text("class Spiral: pass")
    monkeypatch.syspath_prepend(str(tmp_path))
    return Registry("draw.shape", "shapes", "SHAPE")


def test_a_file_and_a_folder_are_members_by_their_names(shapes):
    assert shapes.names() == ("big-circle", "not-imported", "polygon")
    assert shapes.get("big-circle") == "a circle"
    assert shapes.get("polygon") == "a polygon"
    assert Registry("draw.shape", "shapes", "SHAPE", folders_only=True).names() == ("polygon",)


def test_a_member_from_outside_is_named_by_its_module_and_counts_by_its_code(shapes, tmp_path):
    assert shapes.get("spiral:Spiral").__name__ == "Spiral"
    assert shapes.outside_code("spiral:Spiral") == {"code": file_hash(tmp_path / "spiral.py")}
    assert shapes.outside_code("big-circle") == {}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("square", "draw.shape=square: expected one of big-circle, not-imported, polygon, or your own package.module:Name."),
        ("big_circle", "draw.shape=big_circle: expected one of big-circle"),
        (
            "nowhere:Spiral",
            "draw.shape=nowhere:Spiral: nowhere cannot be imported (No module named 'nowhere'). Is its folder on",
        ),
        ("spiral:Line", "draw.shape=spiral:Line: spiral has no Line."),
    ],
)
def test_a_name_that_cannot_be_found_is_one_message(shapes, name, words):
    with pytest.raises(UserError, match=re.escape(words)):
        shapes.get(name)


@pytest.mark.parametrize("name", [":Spiral", "spiral:", "..:Spiral", "spiral :Spiral", "spiral:Spiral:more", "spi\0ral:Spiral"])
def test_a_name_that_is_no_name_of_python_is_one_message(shapes, name):
    with pytest.raises(UserError, match=re.escape(f"draw.shape={name}: expected package.module:Name.")):
        shapes.get(name)


def test_something_else_under_a_name_from_outside_is_refused(shapes):
    circles = Registry("draw.shape", "shapes", "SHAPE", is_member=lambda found: isinstance(found, str))
    assert circles.get("big-circle") == "a circle"
    with pytest.raises(
        UserError, match=re.escape("draw.shape=spiral:Spiral: a type that is no SHAPE; CONTRIBUTING.md has one.")
    ):
        circles.get("spiral:Spiral")


def test_a_module_without_a_file_has_no_code_to_count_by(shapes):
    with pytest.raises(UserError, match="no file of Python"):
        shapes.outside_code("sys:path")
