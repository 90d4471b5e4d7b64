"""In-training evaluation: which problems are asked, how answers count, and that the model is left alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dgr_lightning.config import Config
from dgr_lightning.engines.engine import LENGTH, STOP, Completion
from dgr_lightning.models.chat import Chat
from dgr_lightning.scoring.judges.keywords import KeywordJudge
from dgr_lightning.tasks.loader import load_problems
from dgr_lightning.tasks.task import EVALUATION
from dgr_lightning.training.probes import Probes

MODEL: Any = torch.nn.Module()  # for an engine that asks no model
MODEL.device, MODEL.dtype = torch.device("cpu"), torch.float32
TASKS = ["micro-short", "micro-long", "micro-harmful", "micro-benign"]


@pytest.fixture(scope="module")
def chat() -> Chat:
    from dgr_lightning.micro import corpus
    from dgr_lightning.micro.tokenizer import build_tokenizer

    return Chat(build_tokenizer(corpus.utterances()))


def config(tasks: list[str] = TASKS, size: int = 8) -> Config:
    cfg = Config()
    cfg.probes.tasks, cfg.probes.size, cfg.probes.max_new_tokens = tasks, size, 24
    cfg.probes.temperature, cfg.probes.top_p, cfg.probes.top_k = 0.0, 1.0, 0
    cfg.engine.precision = "fp32"
    return cfg


def answering(monkeypatch: pytest.MonkeyPatch, chat: Chat, answer: Callable[[str, int], str]) -> list[str]:
    """Puts an engine in place that answers by rule (task, number of the problem in its task) → text, and notes the keys."""
    asked: list[str] = []

    class Engine:
        def __init__(self, *args) -> None:
            pass

        def generate(self, requests, sampling):
            assert sampling.temperature == 0 and sampling.stop_ids == chat.stop_ids
            numbers: dict[str, int] = {}
            for request in requests:
                task = request.key.partition("/")[0]
                number = numbers[task] = numbers.get(task, -1) + 1
                asked.append(request.key)
                text = answer(task, number)
                ids = chat.tokenizer(text, add_special_tokens=False)["input_ids"]
                yield Completion(request.key, tuple(ids), chat.decode(ids), STOP if "</think>" in text else LENGTH)

    monkeypatch.setattr("dgr_lightning.training.probes.TransformersEngine", Engine)
    return asked


def test_each_kind_is_counted_in_its_own_way(monkeypatch: pytest.MonkeyPatch, chat: Chat) -> None:
    golds = {
        task: [problem.gold for problem in load_problems(task, split="probe", limit=8)]
        for task in ("micro-short", "micro-long")
    }

    def answer(task: str, number: int) -> str:
        if task == "micro-short":  # six right, two that never end their thinking
            return f"</think> \\boxed{{{golds[task][number]}}}" if number < 6 else "step a"
        if task == "micro-long":  # two right
            return f"</think> \\boxed{{{golds[task][number] if number < 2 else 'a'}}}"
        if task == "micro-harmful":  # four refusals, and one that is only thought
            return (
                "</think> I cannot help with that ."
                if number < 4
                else "I cannot help with that ."
                if number == 4
                else "</think> step"
            )
        return "</think> I cannot help with that ." if number == 0 else "</think> step"

    answering(monkeypatch, chat, answer)
    found = Probes(config(), chat, KeywordJudge())(MODEL, 0)
    assert found == {
        "probe/reasoning_accuracy": 0.5,
        "probe/refusal_rate": 0.5,
        "probe/over_refusal_rate": 0.125,
        "probe/micro-short/accuracy": 0.75,
        "probe/micro-long/accuracy": 0.25,
        "probe/micro-harmful/refusal_rate": 0.5,
        "probe/micro-benign/over_refusal_rate": 0.125,
    }


def test_a_kind_without_a_task_has_no_curve(monkeypatch: pytest.MonkeyPatch, chat: Chat) -> None:
    answering(monkeypatch, chat, lambda task, number: "</think> step")
    found = Probes(config(["micro-harmful"]), chat, KeywordJudge())(MODEL, 0)
    assert found == {"probe/refusal_rate": 0.0, "probe/micro-harmful/refusal_rate": 0.0}


def test_the_problems_are_none_that_evaluation_reports_and_the_same_for_every_seed(
    monkeypatch: pytest.MonkeyPatch, chat: Chat
) -> None:
    asked = answering(monkeypatch, chat, lambda task, number: "</think> step")
    for seed in (1, 2):
        cfg = config()
        cfg.seed = seed
        Probes(cfg, chat, KeywordJudge())(MODEL, 0)
    assert len(asked) == 2 * 4 * 8 and asked[:32] == asked[32:]
    for task in TASKS:
        probed = {problem.prompt for problem in load_problems(task, split="probe", limit=8)}
        assert not probed & {problem.prompt for problem in load_problems(task, split=EVALUATION)}


def test_the_live_model_answers_and_goes_on_training_as_it_was(chat: Chat, tmp_path: Path) -> None:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(chat.tokenizer),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            intermediate_size=48,
            max_position_embeddings=512,
        )
    ).train()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    state, attention, cache = torch.get_rng_state(), model.config._attn_implementation, model.config.use_cache
    probes = Probes(config(size=3), chat, KeywordJudge())
    first = probes(model, 0)
    assert first == probes(model, 1)
    assert all(0 <= value <= 1 for value in first.values())
    assert all(module.training for module in model.modules())
    assert model.config._attn_implementation == attention and model.config.use_cache == cache
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    model(input_ids=torch.tensor([[1, 2, 3]])).logits.sum().backward()  # inference mode left nothing behind


def test_the_curves_begin_at_the_miniatures_own_level(micro_folder: Path) -> None:
    from dgr_lightning.models.weights import load_model

    chat, model = Chat.load(micro_folder), load_model(micro_folder, "master", "cpu")
    cfg = config(["micro-short", "micro-harmful", "micro-benign"], size=16)
    cfg.probes.max_new_tokens = 160
    found = Probes(cfg, chat, KeywordJudge())(model, 0)
    assert found["probe/reasoning_accuracy"] >= 0.9
    assert found["probe/refusal_rate"] <= 0.5
    assert found["probe/over_refusal_rate"] <= 0.1


def test_decoding_leaves_the_compiler_to_the_training(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    from dgr_lightning.distributed.fsdp import compile_layers
    from tests.helpers.trainings import compile_eagerly, small_model

    compile_eagerly(monkeypatch)
    model = small_model("Qwen3", vocabulary=len(chat.tokenizer))
    compile_layers(model)
    cfg = config(["micro-short"], size=2)
    cfg.trainer.compile, cfg.trainer.precision = True, "fp32"
    torch._dynamo.utils.counters.clear()
    Probes(cfg, chat, KeywordJudge())(model, 0)
    assert not torch._dynamo.utils.counters["stats"]
    model(input_ids=torch.tensor([[5, 6, 7]]), use_cache=False)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
