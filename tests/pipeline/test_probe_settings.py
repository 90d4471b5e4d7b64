"""Every auto of the probes is a number before the run is named, and the run hash holds that number."""

import json

import pytest

from dgr_lightning.cli.compose import compose
from dgr_lightning.data.sources import data_hash
from dgr_lightning.pipeline import commands, probe_settings
from dgr_lightning.pipeline.identity import identify
from dgr_lightning.pipeline.probe_settings import drop_unused_cadence, num_examples, settle_cadence, settle_sampling
from tests.helpers.configs import CONTENTS, config
from tests.helpers.source_sets import plain_rows, source_set

SAMPLED = {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 20}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DGR_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def authors(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "generation_config.json").write_text(json.dumps(SAMPLED))
    return folder


def run_hash(cfg, folder, examples=1000):
    settle_cadence(cfg, examples)
    settle_sampling(cfg, folder)
    return identify(cfg, CONTENTS).hash


def test_who_writes_the_numbers_that_auto_gives_has_the_same_run(authors):
    cfg = config(probes__every="auto", probes__temperature="auto", probes__top_p="auto", probes__top_k="auto")
    written = {"probes__every": 125, "probes__temperature": 0.6, "probes__top_p": 0.95, "probes__top_k": 20}
    assert run_hash(cfg, authors) == run_hash(config(**written), authors)
    assert cfg.probes.every == 125
    assert run_hash(config(**written | {"probes__temperature": 0.5}), authors) != run_hash(cfg, authors)


def test_a_model_that_is_greedy_keeps_the_runs_it_had(micro_folder):
    auto = {f"probes__{name}": "auto" for name in ("temperature", "top_p", "top_k")}
    assert run_hash(config(**auto), micro_folder) == "7c600d3604df", "as tests/pipeline/test_identity.py pins it"
    cfg = config(**auto | {"probes__temperature": 0.7})
    settle_sampling(cfg, micro_folder)
    assert (cfg.probes.temperature, cfg.probes.top_p, cfg.probes.top_k) == (0.7, 1.0, 0)


def test_where_nothing_is_probed_there_is_nothing_to_count_or_to_sample(authors):
    cfg = config(probes__every="auto", probes__tasks=[], probes__temperature="auto")
    drop_unused_cadence(cfg)
    settle_sampling(cfg, authors)
    assert (cfg.probes.every, cfg.probes.temperature) == (0, 0.0)


def test_a_set_is_counted_as_it_is_drawn_and_read_once(tmp_path, monkeypatch, capsys):
    rows = plain_rows(20, "harmful") + [{"prompt": "", "trace": "t", "answer": "a", "label": "harmful"}] * 3
    path = source_set(tmp_path, rows, name="set").path
    cfg = compose("train", [f"data.path={path}"])
    assert num_examples(cfg, data_hash(cfg.data)) == 20, "rejected rows are not counted"
    assert num_examples(compose("train", [f"data.path={path}", "data.limit=7"]), data_hash(cfg.data)) == 7
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(probe_settings, "load_sources", lambda *args: pytest.fail("read again"))
    assert num_examples(cfg, data_hash(cfg.data)) == 20
    for file in (tmp_path / "cache" / "example_counts").iterdir():
        file.write_text("{")
    monkeypatch.undo()
    monkeypatch.setenv("DGR_CACHE", str(tmp_path / "cache"))
    assert num_examples(cfg, data_hash(cfg.data)) == 20, "a damaged count is made again"


def test_the_cadence_is_decided_before_the_run_is_named(tmp_path, monkeypatch, micro_folder):
    """The default set has 400 examples: 25 steps in each of 5 epochs."""
    opened = []
    monkeypatch.setattr(commands.RunDir, "open", lambda cfg, identity, *args: opened.append((cfg, identity)))
    from dgr_lightning.engines.model_handle import ModelHandle
    from dgr_lightning.pipeline.place import Place

    for overrides in ([], ["probes.every=25"], ["refine.on_failure=drop"], ["sft.max_steps=40"], ["data.limit=48"]):
        cfg = compose("train", overrides)
        cfg.engine.name, cfg.engine.precision, cfg.trainer.precision = "transformers", "fp32", "fp32"
        commands._open(cfg, ModelHandle(micro_folder, cfg), Place(tmp_path), "train")
    assert [cfg.probes.every for cfg, _ in opened] == [25, 25, 25, 8, 3]
    assert opened[0][1].hash == opened[1][1].hash and opened[0][1].described["probes"]["every"] == 25
