"""The run directory: who owns it, what it holds, and what is refused untouched."""

import os
import re
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from dgr_lightning.config import Config
from dgr_lightning.errors import UserError
from dgr_lightning.files import write_json
from dgr_lightning.pipeline.identity import identify
from dgr_lightning.pipeline.place import Place
from tests.helpers.configs import CONTENTS, config, open_run
from tests.helpers.runs import ROOT


def test_the_path_can_be_typed(tmp_path):
    cfg = config(model__name="my model/α", data__name="a=b,c", sft__lr=5e-5)
    with open_run(cfg, Place(tmp_path / "runs")) as run:
        parts = run.path.relative_to(tmp_path).parts
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", part) for part in parts)
    assert parts[:2] == ("runs", "test") and parts[2].endswith(run.hash) and "lr5e-05" in parts[2]


@pytest.mark.parametrize(("kind", "prefix"), [("refine", "refine-"), ("evaluate", "evaluate-"), ("train", "micro_star1_dgr_")])
def test_the_entry_point_shows_in_the_name(kind, prefix):
    assert identify(config(), CONTENTS, kind).slug.startswith(prefix)


def test_the_same_config_finds_its_directory_again(tmp_path):
    with open_run(config(), Place(tmp_path)) as run:
        first = run.path
        assert not run.done
        (run.path / "kept").write_text("x")
        write_json(run.path / "summary.json", {})
    with open_run(config(evaluation__limit=4), Place(tmp_path)) as run:
        assert run.path == first and run.done and (run.path / "kept").exists()
        written = yaml.safe_load((run.path / "config.yaml").read_text())
    assert written == asdict(config(evaluation__limit=4))


def test_overwrite_starts_anew(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    with open_run(config(), Place(tmp_path)) as run:
        (run.path / "checkpoints").mkdir()
        (run.path / "checkpoints" / "step").write_text("x")
        (run.path / "link").symlink_to(outside)
        write_json(run.path / "summary.json", {})
    with open_run(config(overwrite=True), Place(tmp_path)) as run:
        assert sorted(entry.name for entry in run.path.iterdir()) == [".lock", ".run.json", "config.yaml"]
    assert (outside / "precious").exists()


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def test_a_run_begun_on_other_weights_of_the_same_recipe_is_refused_untouched(tmp_path):
    with open_run(config(), Place(tmp_path)) as run:
        (run.path / "refined.jsonl").write_text("{}\n")
    before = snapshot(tmp_path)
    with pytest.raises(UserError, match=r"begun on other weights of the model \(w1, here w2\).*overwrite=true"):
        open_run(config(), Place(tmp_path), model_hash="w2")
    assert snapshot(tmp_path) == before
    open_run(config(overwrite=True), Place(tmp_path), model_hash="w2").close()
    open_run(config(), Place(tmp_path), model_hash="w2").close()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_directory_with_another_run_is_refused_untouched_with_the_difference(tmp_path, overwrite):
    place = Place(exact=tmp_path / "here")
    with open_run(config(), place):
        (tmp_path / "here" / "refined.jsonl").write_text("{}\n")
    before = snapshot(tmp_path)
    with pytest.raises(UserError) as raised:
        open_run(config(sft__lr=0.5, overwrite=overwrite), contents=CONTENTS | {"data": "d2"}, place=place)
    message = str(raised.value)
    assert "sft.lr: 1e-05 there, 0.5 here" in message and "content.data: 'd1' there, 'd2' here" in message
    assert "sft.epochs" not in message
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_directory_that_is_no_run_is_refused_untouched(tmp_path, overwrite):
    (tmp_path / "thesis.tex").write_text("x")
    before = snapshot(tmp_path)
    with pytest.raises(UserError, match="no run of this project"):
        open_run(config(overwrite=overwrite), Place(exact=tmp_path))
    assert snapshot(tmp_path) == before


def test_a_file_in_its_place_is_a_user_error(tmp_path):
    (tmp_path / "test").write_text("x")
    with pytest.raises(UserError, match="test"):
        open_run(config(), Place(tmp_path))


HOLDER = """
import sys, time
from pathlib import Path
from dgr_lightning.config import Config
from dgr_lightning.pipeline.place import Place
from tests.helpers.configs import open_run
run = open_run(Config(), Place(exact=Path(sys.argv[1])))
print("holding", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that owns a run directory."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "run")], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "holding\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_process_waits_and_then_names_the_owner(holder, tmp_path):
    with pytest.raises(UserError, match=f"process {holder.pid} on "):
        open_run(Config(), Place(exact=tmp_path / "run"), wait_seconds=0.3)


def test_the_lock_dies_with_its_process(holder, tmp_path):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with open_run(Config(), Place(exact=tmp_path / "run"), wait_seconds=5) as run:
        assert not run.done


def test_a_waiting_process_goes_on_when_the_owner_ends(holder, tmp_path, capsys, monkeypatch):
    # It ends when this one first waits.
    monkeypatch.setattr("dgr_lightning.pipeline.run_directory.sleep", lambda seconds: (holder.kill(), holder.wait()))
    with open_run(Config(), Place(exact=tmp_path / "run"), wait_seconds=60):
        pass
    assert f"process {holder.pid}" in capsys.readouterr().out


def test_a_run_that_is_refused_before_anything_is_in_it_leaves_no_directory(tmp_path):
    place = Place(tmp_path / "runs")
    with pytest.raises(UserError, match="rows"), open_run(config(), place):
        raise UserError("no such rows")
    assert place.directory is None and not list(tmp_path.iterdir())


def test_what_a_refused_run_holds_stays_and_so_does_a_directory_of_before(tmp_path):
    with pytest.raises(UserError), open_run(config(), Place(tmp_path / "runs")) as run:
        (run.path / "refined.jsonl").write_text("x")
        raise UserError("too long")
    assert (run.path / "refined.jsonl").exists()
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError), open_run(config(), Place(exact=tmp_path / "mine")):
        raise UserError("no such rows")
    assert (tmp_path / "mine").is_dir()
    with pytest.raises(RuntimeError), open_run(config(), Place(tmp_path / "failed")):
        raise RuntimeError
    assert list((tmp_path / "failed" / "test").iterdir())
