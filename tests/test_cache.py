"""Where the cache lies, and the message where it cannot be created."""

from pathlib import Path

import pytest

from dgr_lightning.cache import cache_dir, require_cache
from dgr_lightning.cli import entry
from dgr_lightning.cli.failures import BAD_CONFIG
from dgr_lightning.errors import UserError


def test_the_cache_is_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("DGR_CACHE", str(tmp_path / "a" / "cache"))
    assert cache_dir() == tmp_path / "a" / "cache" and not cache_dir().exists()
    require_cache()
    require_cache()
    assert cache_dir().is_dir()
    monkeypatch.delenv("DGR_CACHE")
    assert cache_dir() == Path.home() / ".cache" / "dgr_lightning"


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_an_unusable_cache_ends_a_run_before_it_starts(tmp_path, monkeypatch, capsys, name):
    (tmp_path / "file").touch()
    monkeypatch.setenv("DGR_CACHE", str(tmp_path / name))
    with pytest.raises(UserError, match=rf"{tmp_path / name}: cannot be used as the cache \(.+\); .*DGR_CACHE="):
        require_cache()
    code = entry.run(lambda cfg, place: pytest.fail("started"), "train", [f"hydra.run.dir={tmp_path / 'run'}"])
    assert code == BAD_CONFIG and "DGR_CACHE=" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
