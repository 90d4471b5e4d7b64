"""models=[…]: what an entry names, what does not go with several, and that each is composed as the command with it alone."""

import json
from pathlib import Path

import pytest

from dgr_lightning.cli import several_models
from dgr_lightning.cli.several_models import named
from dgr_lightning.errors import UserError
from dgr_lightning.files import write_json
from dgr_lightning.installation import CONF
from tests.helpers.compared_runs import HALF, write_run

FOLDERS = (CONF,)


@pytest.fixture
def training(tmp_path, folder) -> Path:
    run = tmp_path / "a run"
    write_json(run / "stages" / "train.json", {})
    write_json(run / ".run.json", {})
    folder.rename(run / "model")
    return run


def test_an_entry_is_a_choice_a_folder_a_run_or_an_id_on_the_hub(folder, tmp_path):
    assert named("micro", FOLDERS).overrides == ("model=micro",)
    assert named(str(folder), FOLDERS).overrides == (f'model.path="{folder}"',)
    assert named("Qwen/Qwen3-0.6B", FOLDERS).overrides == ('model.hub_id="Qwen/Qwen3-0.6B"',)
    pinned = named("Qwen/Qwen3-0.6B@abc123", FOLDERS).overrides
    assert pinned == ('model.hub_id="Qwen/Qwen3-0.6B"', 'model.revision="abc123"')
    assert named(str(folder), FOLDERS).training is None


def test_a_training_and_its_model_folder_name_the_same(training):
    run, model = named(str(training), FOLDERS), named(str(training / "model"), FOLDERS)
    assert run.overrides == model.overrides == (f'model.path="{training / "model"}"',)
    assert run.training == model.training == training


def test_an_adapter_is_a_model(tmp_path):
    write_json(tmp_path / "adapter" / "adapter_config.json", {"peft_type": "LORA"})
    assert named(str(tmp_path / "adapter"), FOLDERS).overrides == (f'model.path="{tmp_path / "adapter"}"',)


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda path: path.write_text(""), "is a file; name a run, or the folder of a model"),
        (lambda path: path.mkdir(), "holds no model (config.json, or adapter_config.json of an adapter) and is no run"),
        (lambda path: write_run(path, {"gsm8k": HALF}), "is a finished run of evaluate.py or refine.py, no model"),
        (lambda path: write_json(path / ".run.json", {}), "that is a run without a model of its own"),
        (lambda path: None, "is no folder here"),
    ],
)
def test_what_is_no_model_is_refused_with_what_to_name(make, said, tmp_path):
    make(tmp_path / "it")
    with pytest.raises(UserError) as refused:
        named(str(tmp_path / "it"), FOLDERS)
    assert str(refused.value).startswith("models") and said in str(refused.value)


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["models=[micro]"], "models=[micro]: a comparison takes two models or more; for one write model.path=<folder>."),
        (["models=[micro,micro]"], "a model is named twice"),
        (["models=micro"], "expected a list"),
        (["models=[micro,nothing-like-it]"], "models: nothing-like-it is no folder here"),
        (["models=[micro,qwen3-4b]", "model=micro"], "with model: each model has a run of its own; leave out model."),
        (["models=[micro,qwen3-4b]", "model.path=x"], "leave out model.path."),
        (["models=[micro,qwen3-4b]", "hydra.run.dir=x"], "name=<name> puts all of them into runs/<name>"),
        (["-m", "models=[micro,qwen3-4b]"], "leave out -m, or sweep over model.path."),
        (["-m", "models=[micro],[qwen3-4b]"], "expected a list"),
        (["models=[micro,qwen3-4b]", "engine=server", "engine.url=http://127.0.0.1:1/v1"], "a server is one model"),
        (["models=[micro,qwen3-4b]", "evaluation.samples=none"], "evaluation.samples=none"),
    ],
)
def test_what_does_not_go_with_several_models_ends_with_2_before_any_is_run(arguments, said, run_script, capsys):
    code, seen = run_script(*arguments, command="evaluate")
    assert (code, seen) == (2, [])
    assert said in capsys.readouterr().err


def test_a_base_is_for_an_adapter_among_the_models(run_script, capsys):
    assert run_script("models=[micro,qwen3-4b]", "model.base=micro", command="evaluate") == (2, [])
    assert "model.base=… belongs to adapters, and none of the models is one" in capsys.readouterr().err


def test_training_takes_one_model(run_script, capsys):
    code, seen = run_script("models=[micro,qwen3-4b]")
    assert (code, seen) == (2, [])
    assert "only evaluate.py takes several models; sweep over model here, with -m." in capsys.readouterr().err


@pytest.fixture
def evaluations(run_script, tmp_path, monkeypatch):
    """Runs models=[…] with a stage that leaves a finished run; returns the exit code and the configs that it got."""
    monkeypatch.setattr(several_models, "resolve", lambda cfg, command, given: None)
    seen = []

    def run(*arguments, fail=lambda cfg: None):
        def evaluate(cfg, place):
            seen.append(cfg)
            fail(cfg)
            name = cfg.model.hub_id or Path(cfg.model.path or cfg.model.name).name
            place.directory = write_run(tmp_path / "runs" / name.replace("/", "-"), {"gsm8k": HALF}, model__name=name)

        monkeypatch.setattr(several_models, "_measured", lambda main, model, cfg: several_models._run(evaluate, cfg))
        return run_script(*arguments, command="evaluate")[0], seen

    return run


def test_each_model_is_composed_as_alone_and_all_are_compared(evaluations, tmp_path, capsys):
    code, seen = evaluations("models=[micro,Qwen/Qwen3-0.6B]", "evaluation.limit=7", "name=both")
    assert code == 0
    assert [(cfg.model.name, cfg.model.hub_id, cfg.evaluation.name) for cfg in seen] == [
        ("micro", None, "micro"),
        ("local", "Qwen/Qwen3-0.6B", "quick"),
    ]
    assert all(cfg.evaluation.limit == 7 and cfg.models == [] for cfg in seen)
    (out,) = (tmp_path / "runs" / "both").glob("compare-*")
    pairs = json.loads((out / "comparison.json").read_text())["pairs"]
    assert {pair["task"] for pair in pairs} == {"headline", "gsm8k"}
    assert "model 2 of 2: Qwen/Qwen3-0.6B" in capsys.readouterr().out


def test_a_model_that_fails_lets_the_others_run_and_be_compared_and_the_code_is_1(evaluations, tmp_path, capsys):
    def fail(cfg):
        if cfg.model.hub_id == "a/bad":
            raise RuntimeError("out of memory")

    code, seen = evaluations("models=[micro,a/bad,a/good]", "name=three", fail=fail)
    assert code == 1 and len(seen) == 3
    assert list((tmp_path / "runs" / "three").glob("compare-*/comparison.json"))
    assert "1 of 3 models could not be measured; the others are done.\n  a/bad: RuntimeError: out of memory" in (
        capsys.readouterr().err
    )


def test_two_names_of_one_model_are_nothing_to_compare(evaluations, folder, capsys):
    code, _ = evaluations(f"models=[{folder},{folder}/]")
    assert code == 2 and "hold the same model; there is nothing to compare" in capsys.readouterr().err
