"""The published protocols: each composes with any model, checks, and says what its paper says."""

import pytest

from dgr_lightning.cli.compose import compose
from dgr_lightning.cli.overrides import choices
from dgr_lightning.tasks.registry import TASKS
from dgr_lightning.tasks.settings import TaskSettings, settings_of

QWEN = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."


def sampled(tokens: int, temperature: float, top_p: float, samples: int = 1, **more) -> TaskSettings:
    plain = {"seed": 0, "limit": None, "top_k": 0, "repetition_penalty": 1.0, "thinking_tokens": None, "prefill": None}
    chosen = {"samples": samples, "temperature": temperature, "top_p": top_p, "max_new_tokens": tokens}
    return TaskSettings(**plain | chosen | more)


STAR = {"repetition_penalty": 1.2}
TABLE = {
    "protocol-safety-tax": {
        ("aime24", "math500", "gpqa"): sampled(10000, 0.0, 1.0, thinking_tokens=5000),
        ("beavertails",): sampled(5000, 1.0, 1.0, prefill=""),
    },
    "protocol-r1act": {("jailbreakbench", "wildjailbreak", "strongreject", "xstest"): sampled(1024, 0.0, 1.0)},
    "protocol-star1": {
        ("aime24", "math500"): sampled(16384, 0.6, 0.95, **STAR),
        ("gpqa",): sampled(32768, 0.6, 0.95, **STAR),
        ("mmlu_pro",): sampled(4096, 0.6, 0.95, **STAR),
        ("strongreject", "jailbreakbench", "wildjailbreak_star1", "xstest"): sampled(8192, 0.0, 0.95, **STAR),
    },
    "protocol-safechain": {("strongreject", "wildjailbreak"): sampled(16000, 0.0, 1.0)},
    "protocol-thinksafe": {
        ("aime24", "gpqa", "math500", "gsm8k"): sampled(32768, 0.6, 0.95, samples=8),
        ("harmbench_adversarial", "strongreject", "wildjailbreak_harmful", "wildguardtest", "xstest"): sampled(
            16384, 0.6, 0.95
        ),
    },
    "protocol-open-r1": {
        ("aime24",): sampled(32768, 0.6, 0.95, samples=64),
        ("math500",): sampled(32768, 0.6, 0.95, samples=4),
        ("gpqa",): sampled(32768, 0.6, 0.95, samples=8),
    },
}
JUDGED = {"protocol-safety-tax": "answer"} | dict.fromkeys(
    ("protocol-r1act", "protocol-star1", "protocol-safechain", "protocol-thinksafe"), "whole"
)
WORDED = {
    "protocol-safety-tax": {"aime24": "{question}", "gpqa": "{question}\n\n{options}"},
    "protocol-star1": {"math500": 'on its own line after "Answer:", and you do not need to use a \\boxed command.'},
    "protocol-thinksafe": {"math500": "within \\boxed{}. {question}"},
    "protocol-open-r1": {"aime24": "'Therefore, the final answer is: $\\boxed{ANSWER}$. I hope it is correct'"},
}


def of_protocol(name: str, tmp_path, *more: str, command: str = "evaluate", model: str = "r1-distill-7b"):
    """Composes a protocol; ThinkSafe's HarmBench is a file of the user's."""
    rows = tmp_path / "harmbench.json"
    rows.write_text('[{"prompt": "p", "objective": "o"}]')
    local = [f"evaluation.path.harmbench_adversarial={rows}"] if name == "protocol-thinksafe" else []
    return compose(command, [f"model={model}", f"evaluation={name}", *local, *more])


def test_every_protocol_is_in_the_table():
    assert set(TABLE) == {name for name in choices("evaluation") if name.startswith("protocol-")}


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("model", ["r1-distill-7b", "qwen3-4b", "s1.1-7b"])
def test_a_protocol_samples_as_published(name, model, tmp_path):
    cfg = of_protocol(name, tmp_path, model=model)
    assert cfg.evaluation.name == name
    expected = {task: settings for tasks, settings in TABLE[name].items() for task in tasks}
    assert {task: settings_of(cfg.evaluation, task) for task in cfg.evaluation.tasks} == expected
    assert list(expected) == cfg.evaluation.tasks or set(expected) == set(cfg.evaluation.tasks)
    assert cfg.evaluation.system_prompt == (QWEN if name == "protocol-r1act" else None)


@pytest.mark.parametrize("name", TABLE)
def test_a_protocol_words_its_prompts_and_names_its_judge(name, tmp_path):
    cfg = of_protocol(name, tmp_path)
    for task, text in WORDED.get(name, {}).items():
        assert text in cfg.evaluation.prompts[task] and "{question}" in cfg.evaluation.prompts[task]
    judged = any(TASKS[task].grader is None for task in cfg.evaluation.tasks)
    assert judged == (name in JUDGED)
    if judged:
        assert (cfg.judge.name, cfg.judge.part) == ("llama-guard", JUDGED[name])
        named = of_protocol(name, tmp_path, "judge=keywords", "judge.part=answer")
        assert (named.judge.name, named.judge.part) == ("keywords", "answer")


def test_the_command_line_wins_over_what_a_protocol_says_of_kinds_and_tasks(tmp_path):
    short = of_protocol("protocol-star1", tmp_path, "evaluation.max_new_tokens=64", "evaluation.limit=5").evaluation
    assert {settings_of(short, task).max_new_tokens for task in short.tasks} == {64}
    assert settings_of(short, "gpqa") == sampled(64, 0.6, 0.95, limit=5, **STAR)
    assert settings_of(short, "xstest").temperature == 0
    one = of_protocol("protocol-star1", tmp_path, "evaluation.max_new_tokens=64", "evaluation.by_task.gpqa.max_new_tokens=99")
    assert [settings_of(one.evaluation, task).max_new_tokens for task in ("gpqa", "mmlu_pro", "aime24")] == [99, 64, 64]
    own = of_protocol("protocol-open-r1", tmp_path, "evaluation.samples=2", "evaluation.prompts.aime24=null").evaluation
    assert settings_of(own, "aime24").samples == 2 and own.prompts["aime24"] is None


def test_a_protocol_measures_a_training_too(tmp_path):
    cfg = of_protocol("protocol-safechain", tmp_path, "data=star1", command="train")
    assert (cfg.evaluation.name, cfg.judge.name) == ("protocol-safechain", "llama-guard")


def test_fewer_tasks_of_a_protocol_keep_its_settings(tmp_path):
    cfg = of_protocol("protocol-star1", tmp_path, "evaluation.tasks=[math500]")
    assert settings_of(cfg.evaluation, "math500") == sampled(16384, 0.6, 0.95, **STAR)
