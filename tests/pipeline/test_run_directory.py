"""What names a run, and who owns its directory."""

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
from dgr_lightning.pipeline.identity import describe, evaluation_hash, run_hash, slug
from dgr_lightning.pipeline.run_directory import Place, RunDir
from tests.helpers.runs import ROOT

IDENTITIES = {"model": "m1", "data": "d1", "probes": "p1", "evaluation": "e1"}


def config(**changes) -> Config:
    """Returns a config with dotted keys changed, dots written as double underscores."""
    cfg = Config(name="test")
    cfg.model.name, cfg.data.name, cfg.refine.name = "micro", "star1", "dgr"
    cfg.engine.name, cfg.engine.precision, cfg.trainer.precision = "transformers", "fp32", "fp32"
    cfg.evaluation.name, cfg.evaluation.tasks = "quick", ["gsm8k"]
    for key, value in changes.items():
        *sections, name = key.split("__")
        node = cfg
        for section in sections:
            node = vars(node)[section]
        assert name in vars(node)
        setattr(node, name, value)
    return cfg


# --- The hash -------------------------------------------------------------------------------------------------------------

DETERMINES = [
    {"seed": 2},
    {"data__name": "other"},  # ids carry it, and the noise of a rewrite follows from the id
    {"data__limit": 7},
    {"data__benign_ratio": 0.5},
    {"data__first": 9},
    {"data__keep": {"label": "x"}},
    {"data__fields__prompt": "question"},
    {"refine__strategy": "vanilla"},
    {"refine__seed": 1},
    {"refine__temperature": 0.0},
    {"refine__tries": 2},
    {"refine__max_new_tokens": 9},
    {"refine__overthinking_tokens": 9},
    {"refine__fraction": 0.5},
    {"refine__on_failure": "drop"},
    {"refine__checks": ["empty"]},
    {"engine__precision": "bf16"},
    {"sft__lr": 1e-3},
    {"sft__epochs": 1},
    {"sft__max_steps": 4},
    {"sft__batch_size": 4},
    {"sft__max_length": 64},
    {"sft__optimizer": "adamw8bit"},
    {"tuning__method": "lora"},
    {"sft__weight_decay": 0.0},
    {"sft__warmup_ratio": 0.0},
    {"sft__clip_norm": 2.0},
    {"trainer__precision": "bf16"},
    {"probes__every": 5},
    {"probes__size": 5},
    {"probes__tasks": ["gsm8k"]},
]
DOES_NOT = [
    {"name": "other"},
    {"overwrite": True},
    {"model__name": "other", "model__path": "/elsewhere", "model__hub_id": "a/b", "model__revision": "c", "model__seed": 5},
    {"data__path": "/elsewhere.jsonl", "data__hub_id": "a/b", "data__revision": "c", "data__split": "test"},
    {"refine__name": "mine"},
    {"engine__batch_size": 3},
    {"tuning__rank": 3, "tuning__layers": "0-1"},  # of adapters, and every weight is trained
    {"tuning__quant_storage": "uint8"},
    {"sft__max_tokens": 64},
    {"trainer__name": "x", "trainer__accelerator": "cuda", "trainer__devices": 8, "trainer__nodes": 2},
    {"trainer__checkpoint_every": 1, "trainer__max_restarts": 3},
    {"evaluation__name": "x", "evaluation__tasks": ["math500"], "evaluation__limit": 3, "evaluation__seed": 4},
    {"evaluation__path": {"gsm8k": "/elsewhere"}},
    {"probes__path": {"gsm8k": "/elsewhere"}},
    {"logger__name": "wandb", "logger__project": "x"},
]


@pytest.mark.parametrize("changes", DETERMINES, ids=str)
def test_what_determines_the_model_or_its_curves_changes_the_hash(changes):
    assert run_hash(config(**changes), IDENTITIES) != run_hash(config(), IDENTITIES)


@pytest.mark.parametrize("changes", DOES_NOT, ids=str)
def test_what_does_not_leaves_it(changes):
    assert run_hash(config(**changes), IDENTITIES) == run_hash(config(), IDENTITIES)


@pytest.mark.parametrize("key", ["model", "data", "probes"])
def test_content_changes_the_hash(key):
    assert run_hash(config(), IDENTITIES | {key: "another"}) != run_hash(config(), IDENTITIES)


def test_the_evaluation_tasks_have_a_hash_of_their_own():
    reference = evaluation_hash(config(), IDENTITIES)
    assert run_hash(config(), IDENTITIES | {"evaluation": "e2"}) == run_hash(config(), IDENTITIES)
    assert evaluation_hash(config(), IDENTITIES | {"evaluation": "e2"}) != reference
    for changes in (
        {"evaluation__limit": 3},
        {"evaluation__seed": 3},
        {"evaluation__tasks": []},
        {"engine__precision": "bf16"},
    ):
        assert evaluation_hash(config(**changes), IDENTITIES) != reference
    for changes in ({"evaluation__name": "x"}, {"evaluation__path": {"gsm8k": "x"}}, {"sft__lr": 0.1}, {"seed": 5}):
        assert evaluation_hash(config(**changes), IDENTITIES) == reference


@pytest.mark.parametrize("changes", [{"refine__temperature": 0.1}, {"refine__tries": 5}, {"refine__fraction": 0.5}], ids=str)
def test_without_refinement_the_keys_of_generation_say_nothing(changes):
    vanilla = config(refine__strategy="vanilla")
    assert run_hash(config(refine__strategy="vanilla", **changes), IDENTITIES) == run_hash(vanilla, IDENTITIES)


def test_of_tuning_the_keys_of_its_method_count():
    assert describe(config(), IDENTITIES)["tuning"] == {"method": "full"}  # as before there were adapters
    for method in ("lora", "qlora"):
        reference = run_hash(config(tuning__method=method), IDENTITIES)
        for key, value in {"rank": 3, "alpha": 5.0, "dropout": 0.1, "target_modules": ["up_proj"], "layers": "0-1"}.items():
            assert run_hash(config(tuning__method=method, **{f"tuning__{key}": value}), IDENTITIES) != reference, key
        assert run_hash(config(tuning__method=method, tuning__quant_storage="uint8"), IDENTITIES) == reference
        assert f"_{method}-r16_" in slug(config(tuning__method=method))
    assert "_r16_" not in slug(config())


def test_texts_count_by_content_and_not_by_path(tmp_path):
    first, second = tmp_path / "a.jinja", tmp_path / "b.jinja"
    first.write_text("{{ trace }}")
    second.write_text("{{ trace }}")
    hashes = [run_hash(config(refine__trace_template=str(file)), IDENTITIES) for file in (first, second)]
    assert hashes[0] == hashes[1] != run_hash(config(), IDENTITIES)
    shipped = ROOT / "dgr_lightning" / "prompts" / "dgr_trace.jinja"
    assert run_hash(config(refine__trace_template=str(shipped)), IDENTITIES) == run_hash(config(), IDENTITIES)
    first.write_text("{{ trace }}!")
    assert run_hash(config(refine__trace_template=str(first)), IDENTITIES) != hashes[0]


@pytest.mark.parametrize("changes", [{"sft__lr": 1e-3}, {"trainer__precision": "bf16"}, {"probes__every": 1}], ids=str)
def test_refine_runs_do_not_depend_on_training(changes):
    assert run_hash(config(**changes), IDENTITIES, "refine") == run_hash(config(), IDENTITIES, "refine")
    assert run_hash(config(refine__seed=4), IDENTITIES, "refine") != run_hash(config(), IDENTITIES, "refine")


def test_kinds_never_share_a_hash():
    assert len({run_hash(config(), IDENTITIES, kind) for kind in ("train", "refine", "evaluate")}) == 3


def test_a_section_is_hashed_unless_it_is_left_out_on_purpose():
    assert list(describe(config(), IDENTITIES)) == [
        *(
            "seed",
            "model",
            "data",
            "refine",
            "engine",
            "tuning",
            "sft",
            "trainer",
            "probes",
            "content",
            "kind",
            "recipe_version",
        )
    ]


# --- The directory --------------------------------------------------------------------------------------------------------


def test_the_path_can_be_typed(tmp_path):
    cfg = config(model__name="my model/α", data__name="a=b,c", sft__lr=5e-5)
    with RunDir.open(cfg, IDENTITIES, Place(tmp_path / "runs")) as run:
        parts = run.path.relative_to(tmp_path).parts
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", part) for part in parts)
    assert parts[:2] == ("runs", "test") and parts[2].endswith(run.hash) and "lr5e-05" in parts[2]


@pytest.mark.parametrize(("kind", "prefix"), [("refine", "refine-"), ("evaluate", "evaluate-"), ("train", "micro_star1_dgr_")])
def test_the_entry_point_shows_in_the_name(kind, prefix):
    assert slug(config(), kind).startswith(prefix)


def test_the_same_config_finds_its_directory_again(tmp_path):
    with RunDir.open(config(), IDENTITIES, Place(tmp_path)) as run:
        first = run.path
        assert not run.done
        (run.path / "kept").write_text("x")
        write_json(run.path / "summary.json", {})
    with RunDir.open(config(evaluation__limit=4), IDENTITIES, Place(tmp_path)) as run:
        assert run.path == first and run.done and (run.path / "kept").exists()
        written = yaml.safe_load((run.path / "config.yaml").read_text())
    assert written == asdict(config(evaluation__limit=4))


def test_overwrite_starts_anew(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    with RunDir.open(config(), IDENTITIES, Place(tmp_path)) as run:
        (run.path / "checkpoints").mkdir()
        (run.path / "checkpoints" / "step").write_text("x")
        (run.path / "link").symlink_to(outside)
        write_json(run.path / "summary.json", {})
    with RunDir.open(config(overwrite=True), IDENTITIES, Place(tmp_path)) as run:
        assert sorted(entry.name for entry in run.path.iterdir()) == [".lock", ".run.json", "config.yaml"]
    assert (outside / "precious").exists()


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_directory_with_another_run_is_refused_untouched_with_the_difference(tmp_path, overwrite):
    place = Place(exact=tmp_path / "here")
    with RunDir.open(config(), IDENTITIES, place):
        (tmp_path / "here" / "refined.jsonl").write_text("{}\n")
    before = snapshot(tmp_path)
    with pytest.raises(UserError) as raised:
        RunDir.open(config(sft__lr=0.5, overwrite=overwrite), IDENTITIES | {"data": "d2"}, place)
    message = str(raised.value)
    assert "sft.lr: 1e-05 there, 0.5 here" in message and "content.data: 'd1' there, 'd2' here" in message
    assert "sft.epochs" not in message
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_directory_that_is_no_run_is_refused_untouched(tmp_path, overwrite):
    (tmp_path / "thesis.tex").write_text("x")
    before = snapshot(tmp_path)
    with pytest.raises(UserError, match="no run of this project"):
        RunDir.open(config(overwrite=overwrite), IDENTITIES, Place(exact=tmp_path))
    assert snapshot(tmp_path) == before


def test_a_file_in_its_place_is_a_user_error(tmp_path):
    (tmp_path / "test").write_text("x")
    with pytest.raises(UserError, match="test"):
        RunDir.open(config(), IDENTITIES, Place(tmp_path))


HOLDER = """
import sys, time
from pathlib import Path
from dgr_lightning.config import Config
from dgr_lightning.pipeline.run_directory import Place, RunDir
run = RunDir.open(Config(), {}, Place(exact=Path(sys.argv[1])))
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
        RunDir.open(Config(), {}, Place(exact=tmp_path / "run"), wait_seconds=0.3)


def test_the_lock_dies_with_its_process(holder, tmp_path):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with RunDir.open(Config(), {}, Place(exact=tmp_path / "run"), wait_seconds=5) as run:
        assert not run.done


def test_a_waiting_process_goes_on_when_the_owner_ends(holder, tmp_path, capsys, monkeypatch):
    # It ends when this one first waits.
    monkeypatch.setattr("dgr_lightning.pipeline.run_directory.sleep", lambda seconds: (holder.kill(), holder.wait()))
    with RunDir.open(Config(), {}, Place(exact=tmp_path / "run"), wait_seconds=60):
        pass
    assert f"process {holder.pid}" in capsys.readouterr().out
