"""Every file of conf/ composes into a config that passes all checks, alone and in a sample of pairs."""

import itertools
import json
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from dgr_lightning.cli.compose import compose
from dgr_lightning.cli.overrides import CONF, choices, groups
from dgr_lightning.config import EvaluationConfig
from dgr_lightning.tasks.registry import TASKS
from dgr_lightning.tasks.settings import settings_of

COMMANDS = ("train", "refine", "evaluate")
MODELS = choices("model")
DATA = choices("data")


@pytest.fixture
def local(tmp_path: Path) -> list[str]:
    """Overrides that give model=local and data=local a folder and a file."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"\0" * 16)
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "p", "trace": "t", "answer": "a"}\n')
    return [f"model.path={folder}", f"data.path={rows}"]


def companions(group: str, choice: str) -> list[str]:
    """Returns the other choices that a choice needs: a data set and a model of the same language."""
    natural = ["model=qwen3-0.6b", "data=star1"]
    if group == "model" and choice != "micro":
        return natural[1:]
    if (group, choice) == ("data", "mix"):
        return ["data.mix=[{data: micro-r1act, share: 1}]"]
    if group == "data" and choice != "local" and not choice.startswith("micro-"):
        return natural[:1]
    if group == "experiment":
        return [] if choice.startswith("micro-") else natural[:1]
    if choice == "protocol-thinksafe":  # some of its prompts are on no hub
        return [*natural, f"evaluation.path.harmbench_adversarial={__file__}"]
    if group == "judge" and choice in ("chat", "strongreject"):
        return [f"judge={choice}", "judge.url=http://127.0.0.1:8000/v1", "judge.served_model=m"]
    if (group, choice) == ("engine", "server"):
        return ["engine.url=http://127.0.0.1:8000/v1"]
    return natural if (group == "evaluation" and choice != "micro") or (group, choice) == ("refine", "thinksafe") else []


def sources_of(overrides: list[str], local: list[str]) -> list[str]:
    return [f"{name}.path={path}" for name, path in (item.split(".path=") for item in local) if f"{name}=local" in overrides]


ALL = [(group, choice) for group in groups("train") for choice in choices(group)]


@pytest.mark.parametrize(("group", "choice"), ALL, ids=lambda value: value)
def test_every_file_composes(group, choice, local):
    overrides = [f"{group}={choice}", *companions(group, choice)]
    cfg = compose("train", overrides + sources_of(overrides, local))
    text = (CONF / group / f"{choice}.yaml").read_text()
    section = yaml.safe_load(text)
    if text.startswith("# @package _global_"):
        section.pop("defaults", None)
    else:
        section = {group: section}
    if group == "tuning":
        section.pop("sft", None)  # the miniature's learning rate wins
    composed = asdict(cfg)
    for name, values in section.items():
        if not isinstance(values, dict):
            assert composed[name] == values
            continue
        for key, value in values.items():
            if not isinstance(value, dict) and "${" not in str(value):
                assert composed[name][key] == (float(value) if isinstance(composed[name][key], float) else value)


NATURAL_MODELS = [model for model in MODELS if model not in ("micro", "local")]
SETS = [name for name in choices("evaluation") if name != "micro"]


@pytest.mark.parametrize(
    ("model", "name"), zip(NATURAL_MODELS, itertools.islice(itertools.cycle(SETS), len(NATURAL_MODELS)), strict=True)
)
def test_every_model_is_evaluated_on_any_set(model, name):
    cfg = compose("evaluate", [f"model={model}", f"evaluation={name}"])
    assert (cfg.model.name, cfg.evaluation.name) == (model, name)


def evaluation_set(name: str) -> EvaluationConfig:
    """Returns a file of conf/evaluation/ as it stands; that it composes is tested with the others."""
    return EvaluationConfig(**yaml.safe_load((CONF / "evaluation" / f"{name}.yaml").read_text()))


@pytest.mark.parametrize("name", ["quick", "standard", "paper", "full"])
def test_a_set_says_how_many_outputs_it_asks_for(name):
    evaluation = evaluation_set(name)
    sizes = {task: min(TASKS[task].size, evaluation.limit or TASKS[task].size) for task in evaluation.tasks}
    outputs = sum(size * settings_of(evaluation, task).samples for task, size in sizes.items())
    assert f"{outputs:,} outputs" in (CONF / "evaluation" / f"{name}.yaml").read_text()
    assert {TASKS[task].kind for task in evaluation.tasks} == {"reasoning", "harmful", "benign"}
    assert all(settings_of(evaluation, task).samples >= 8 for task in evaluation.tasks if task.startswith("aime"))


def test_sets_grow_and_none_reports_a_default_probe():
    quick, standard, paper, full = (set(evaluation_set(name).tasks) for name in ("quick", "standard", "paper", "full"))
    assert quick == {"gsm8k", "math500", "strongreject", "xstest"} and quick < standard < paper
    parts = {"wildjailbreak"}  # 250 beside the 2,000 of wildjailbreak_harmful
    assert paper - parts < full
    natural = {task.name for task in TASKS.values() if task.language == "natural" and task.hub_id is not None}
    assert natural - full == parts | {"wildjailbreak_star1", "harmbench_standard", "advbench", "jailbreakbench_benign"}


def test_no_file_is_left_out_of_the_groups():
    files = {file.relative_to(CONF).with_suffix("").as_posix() for file in CONF.rglob("*.yaml")}
    assert files == {f"{group}/{choice}" for group, choice in ALL} | {"base", *COMMANDS}


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_file_opens_with_what_it_is_for(path):
    lines = [line for line in path.read_text().splitlines() if not line.startswith("# @package")]
    assert lines[0].startswith("# ") and len(lines[0]) > 20


PAIRS = [
    [f"model={model}", f"data={data}", f"refine={refine}"]
    for (model, data), refine in zip(
        itertools.product(("r1-distill-7b", "r1-distill-70b", "s1.1-7b", "qwen3-8b"), DATA),
        itertools.cycle(choices("refine")),
        strict=False,
    )
    if not data.startswith("mi")  # the miniature's, and a mixture without parts
]


@pytest.mark.parametrize("overrides", PAIRS, ids=" ".join)
def test_pairs_compose(overrides, local):
    cfg = compose("train", overrides + sources_of(overrides, local))
    assert [f"model={cfg.model.name}", f"data={cfg.data.name}"] == overrides[:2]
    assert f"refine={cfg.refine.name}".startswith(overrides[2])
    assert cfg.evaluation.name == "quick"


@pytest.mark.parametrize("command", COMMANDS)
def test_defaults_are_the_miniature(command):
    cfg = compose(command, [])
    assert (cfg.model.recipe, cfg.model.language) == ("micro", "micro")
    if command != "evaluate":
        assert (cfg.data.name, cfg.refine.name) == ("micro-directrefusal", "dgr")
    if command != "refine":
        assert cfg.evaluation.name == "micro" and all(task.startswith("micro-") for task in cfg.evaluation.tasks)


def test_the_command_that_the_project_exists_for():
    cfg = compose("train", ["model=r1-distill-7b", "data=r1act", "refine=dgr"])
    assert cfg.model.hub_id == "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B" and cfg.model.recipe is None
    assert cfg.data.hub_id == "Yeonjun/R1-Act-train"
    assert (cfg.refine.max_new_tokens, cfg.refine.overthinking_tokens) == (8192, 5000)


def test_data_never_changes_how_training_is_done():
    reference = asdict(compose("train", ["model=qwen3-0.6b", "data=star1"]))["sft"]
    for data in ("directrefusal", "r1act", "safechain"):
        assert asdict(compose("train", ["model=qwen3-0.6b", f"data={data}"]))["sft"] == reference


def test_micro_budgets_stay_with_the_miniature():
    micro, real = compose("train", []), compose("train", ["model=qwen3-0.6b", "data=star1"])
    for section, key in (("sft", "lr"), ("sft", "batch_size"), ("refine", "max_new_tokens"), ("probes", "tasks")):
        assert asdict(micro)[section][key] != asdict(real)[section][key]


@pytest.mark.parametrize("override", ["sft.lr=2e-4", "refine.max_new_tokens=77", "probes.every=3", "evaluation.limit=9"])
def test_the_command_line_wins_over_what_the_model_brings(override):
    key, value = override.split("=")
    section, name = key.split(".")
    assert asdict(compose("train", [override]))[section][name] == float(value)


def test_the_command_line_wins_over_the_evaluation_that_the_model_brings(tmp_path):
    cfg = compose("evaluate", ["model=qwen3-0.6b", "evaluation=quick"])
    assert cfg.evaluation.name == "quick"
    assert compose("evaluate", ["evaluation=micro"]).evaluation.name == "micro"


def test_adapters_bring_a_learning_rate_that_everything_else_wins_over():
    real = ["model=qwen3-0.6b", "data=star1"]
    for tuning in ("lora", "qlora"):
        assert compose("train", [*real, f"tuning={tuning}"]).sft.lr == 10 * compose("train", real).sft.lr
        assert compose("train", [*real, f"tuning={tuning}", "sft.lr=3e-5"]).sft.lr == 3e-5
        assert compose("train", [f"tuning={tuning}"]).sft.lr == compose("train", []).sft.lr


def test_published_recipes():
    tax = compose("train", ["experiment=safety-tax", "model=qwen3-0.6b"])
    assert (tax.data.name, tax.sft.lr, tax.sft.epochs, tax.sft.batch_size) == ("directrefusal", 5e-5, 5, 8)
    assert (tax.sft.betas, tax.sft.warmup_ratio, tax.sft.loss_mean) == ([0.9, 0.95], 0.0, "examples")
    star = compose("train", ["experiment=star1", "model=qwen3-0.6b", "sft.batch_size=64"])
    assert (star.data.name, star.sft.lr, star.sft.epochs, star.sft.batch_size) == ("star1", 1e-5, 5, 64)
    assert (star.sft.betas, star.sft.warmup_ratio, star.sft.loss_mean) == ([0.9, 0.95], 0.05, "examples")
    assert (star.sft.max_length, star.sft.truncate, star.data.label_list) == (8192, "left", "star1-1")
    lora = compose("train", ["experiment=lora-safety", "model=r1-distill-14b"])
    assert (lora.data.name, lora.sft.lr, lora.sft.epochs, lora.sft.batch_size) == ("directrefusal", 5e-5, 10, 2)
    assert (lora.tuning.method, lora.tuning.rank, lora.tuning.target_modules) == ("lora", 1, ["up_proj"])
    act = compose("train", ["experiment=r1act", "model=r1-distill-8b", "tuning.rank=8"])
    assert (act.data.name, act.sft.lr, act.sft.optimizer) == ("r1act", 1e-5, "adamw8bit")
    assert (act.tuning.method, act.tuning.rank, act.tuning.alpha) == ("qlora", 8, 16.0)
    assert (act.seed, act.sft.betas, act.sft.warmup_steps, act.sft.append_eos) == (1995, [0.9, 0.95], 5, False)
    assert act.model.system_prompt == "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
