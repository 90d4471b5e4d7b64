"""KL of a tuned model from its base: exact where it is known, right where it is sampled, resumed where it was cut off."""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy

import numpy as np
import pytest
import torch

from dgr_lightning.config import Config
from dgr_lightning.engines.engine import LENGTH, STOP, Completion, Request, Sampling
from dgr_lightning.engines.transformers.engine import TransformersEngine
from dgr_lightning.errors import UserError
from dgr_lightning.models import weights
from dgr_lightning.models.chat import Chat
from dgr_lightning.shift.kl import Trace, kl_divergence, load_prompts, score_traces, write_traces
from dgr_lightning.tasks.task import Problem
from tests.helpers.fake_model import FakeModel

PROBLEMS = [Problem(f"{kind}-{i}", kind, f"ask {i}", None) for kind in ("reasoning", "harmful") for i in range(200)]


class Words:
    """Stands for a chat format with six words, the last of which ends a text."""

    identity, eos_id = {"chat_style": "think"}, 5

    def prompt_ids(self, prompt: str) -> list[int]:
        return [0]


class Categorical:
    """A model whose every token has the same distribution, whatever came before."""

    def __init__(self, probabilities: Sequence[float]) -> None:
        self.probabilities = np.array(probabilities) / sum(probabilities)
        self.num_generated = 0

    def generate(self, requests: Iterable[Request | None], sampling: Sampling) -> Iterator[Completion]:
        assert (sampling.temperature, sampling.top_p, sampling.stop_ids) == (1.0, 1.0, (5,))
        for request in requests:
            assert request is not None
            random = np.random.default_rng([sampling.seed, *request.key.encode()])
            tokens = random.choice(6, sampling.max_new_tokens, p=self.probabilities).tolist()
            end = tokens.index(5) if 5 in tokens else len(tokens)
            self.num_generated += 1
            reason = STOP if 5 in tokens else LENGTH
            yield Completion(request.key, tuple(tokens[:end]), " ".join(map(str, tokens[:end])), reason)

    def score(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        return [[math.log(self.probabilities[token]) for token in target] for _, target in pairs]


def config(max_new_tokens: int = 40) -> Config:
    cfg = Config()
    cfg.engine.name, cfg.engine.precision = "transformers", "fp32"
    cfg.shift.max_new_tokens = max_new_tokens
    return cfg


def measured(base, tuned, tmp_path, problems=PROBLEMS):
    traces = write_traces(FakeModel(base, Words()), problems, config(), tmp_path, "base")
    return kl_divergence(traces, score_traces(base, traces, "base"), score_traces(tuned, traces, "tuned"))


@pytest.mark.parametrize("tuned", [[5, 4, 3, 2, 1, 1], [1, 4, 3, 2, 6, 1], [40, 1, 1, 1, 1, 1]])
def test_the_kl_of_two_known_models_is_the_analytic_one(tmp_path, tuned):
    base, tuned = Categorical([4, 4, 3, 2, 2, 1]), Categorical(tuned)
    p, q = base.probabilities, tuned.probabilities
    exact = float((p * np.log(p / q)).sum())
    found = measured(base, tuned, tmp_path)
    json.dumps(found, allow_nan=False)
    assert list(found) == ["all", "reasoning", "harmful"]
    for figures in found.values():
        for estimate in (figures["kl"], figures["k3"]):
            assert estimate["low"] <= exact <= estimate["high"]
            assert estimate["value"] == pytest.approx(exact, rel=0.15)
    assert found["all"]["kl"]["n"] == 400 and found["harmful"]["kl"]["n"] == 200
    assert found["all"]["tokens"] == found["reasoning"]["tokens"] + found["harmful"]["tokens"]
    # About (15/16)^40 of the texts are still going on after 40 words.
    assert 10 <= found["all"]["cut"] <= 60


def test_k3_is_never_negative_and_has_the_smaller_interval_of_two_models_that_are_close(tmp_path):
    found = measured(Categorical([4, 4, 3, 2, 2, 1]), Categorical([4.2, 3.9, 3, 2, 1.9, 1]), tmp_path)["all"]
    assert found["k3"]["low"] > 0
    assert found["k3"]["high"] - found["k3"]["low"] < (found["kl"]["high"] - found["kl"]["low"]) / 5


def test_the_end_token_counts_where_the_base_set_it():
    finished = Trace("a", "benign", [0], [1, 2, 5], "1 2", STOP)
    cut = Trace("b", "benign", [0], [1, 2], "1 2", LENGTH)
    base, tuned = Categorical([1, 1, 1, 1, 1, 5]), Categorical([1, 1, 1, 1, 1, 1])
    scores = [score_traces(model, [finished, cut], "model") for model in (base, tuned)]
    found = kl_divergence([finished, cut], *scores)
    word, end = math.log(6 / 10), math.log(5 / 10 * 6)
    assert found["benign"]["kl"]["value"] == pytest.approx((4 * word + end) / 5)
    assert found["benign"]["tokens"] == 5 and found["benign"]["cut"] == 1
    assert kl_divergence([cut], [[]], [[]])["all"]["kl"] == {"value": None, "low": None, "high": None, "n": 0}


def test_nothing_is_written_twice(tmp_path):
    class Dying(Categorical):
        def generate(self, requests, sampling):
            for number, completion in enumerate(super().generate(requests, sampling)):
                if number == 30:
                    raise KeyboardInterrupt
                yield completion

    whole = write_traces(FakeModel(Categorical([1] * 6), Words()), PROBLEMS, config(), tmp_path / "whole", "base")
    with pytest.raises(KeyboardInterrupt):
        write_traces(FakeModel(Dying([1] * 6), Words()), PROBLEMS, config(), tmp_path / "cut", "base")
    engine = Categorical([1] * 6)
    assert write_traces(FakeModel(engine, Words()), PROBLEMS, config(), tmp_path / "cut", "base") == whole
    assert engine.num_generated == len(PROBLEMS) - 30
    # Another model, or another length, is another folder.
    assert write_traces(FakeModel(engine, Words(), "n"), PROBLEMS[:3], config(), tmp_path / "cut", "base") == whole[:3]
    assert engine.num_generated == len(PROBLEMS) - 27

    none = FakeModel(AssertionError("everything is stored"), Words())
    assert write_traces(none, PROBLEMS[50:60], config(), tmp_path / "cut", "base") == whole[50:60]


@pytest.fixture(scope="module")
def micro(micro_folder):
    return weights.load_model(micro_folder, "fp32", "cpu"), Chat.load(micro_folder)


def test_a_model_is_at_no_distance_from_itself_and_at_some_from_another(micro, tmp_path):
    model, chat = micro
    cfg = config()
    cfg.probes.tasks, cfg.shift.prompts = ["micro-short", "micro-long", "micro-harmful", "micro-benign"], 6
    problems = load_prompts(cfg)
    assert [problem.kind for problem in problems] == ["reasoning"] * 6 + ["harmful"] * 6 + ["benign"] * 6
    assert all("-probe-" in problem.id for problem in problems)
    engine = TransformersEngine(model, chat, "fp32")
    traces = write_traces(FakeModel(engine, chat, "micro"), problems, cfg, tmp_path, "base")
    again = write_traces(FakeModel(engine, chat, "copy"), problems, cfg, tmp_path, "tuned")
    assert [trace.text for trace in again] == [trace.text for trace in traces]
    finished = [trace for trace in traces if trace.finish_reason == STOP]
    assert finished and all(trace.target_ids[-1] == chat.eos_id for trace in finished)
    scores = score_traces(engine, traces, "base")
    assert [len(score) for score in scores] == [len(trace.target_ids) for trace in traces]
    own = kl_divergence(traces, scores, score_traces(engine, traces, "tuned"))
    assert all(figures[name]["value"] == 0 == figures[name]["high"] for figures in own.values() for name in ("kl", "k3"))

    other_model = deepcopy(model)
    torch.manual_seed(0)
    with torch.no_grad():
        other_model.get_output_embeddings().weight += 0.08 * torch.randn_like(head_of(model))
    found = kl_divergence(traces, scores, score_traces(TransformersEngine(other_model, chat, "fp32"), traces, "tuned"))["all"]
    exact = exact_kl(model, other_model, traces)
    assert exact > 0.001
    # Twice the interval: another machine grows another miniature, and one interval in twenty misses.
    for estimate in (found["kl"], found["k3"]):
        assert abs(estimate["value"] - exact) < estimate["high"] - estimate["low"]


def head_of(model):
    return model.get_output_embeddings().weight


def exact_kl(model, other_model, traces):
    """The divergence of all that could have followed each prefix, not only of what did."""
    total = 0.0
    for trace in traces:
        ids = torch.tensor([[*trace.prompt_ids, *trace.target_ids]])
        with torch.no_grad():
            first, second = (m(ids).logits[0, len(trace.prompt_ids) - 1 : -1].log_softmax(-1) for m in (model, other_model))
        total += float((first.exp() * (first - second)).sum())
    return total / sum(len(trace.target_ids) for trace in traces)


def test_a_larger_number_of_prompts_holds_a_smaller_one_and_tasks_have_to_be_named():
    cfg = config()
    cfg.probes.tasks, cfg.shift.prompts = ["micro-short", "micro-medium", "micro-harmful"], 5
    few = load_prompts(cfg)
    cfg.shift.prompts = 8
    assert {problem.id for problem in few} < {problem.id for problem in load_prompts(cfg)}
    cfg.probes.tasks = []
    with pytest.raises(UserError, match=r"probes\.tasks="):
        load_prompts(cfg)
