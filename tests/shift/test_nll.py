"""The distribution shift of a set: the negative log-likelihood of exactly the tokens that training would learn, by part."""

import json
import math
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from dgr_lightning.engines.transformers.engine import TransformersEngine
from dgr_lightning.errors import UserError
from dgr_lightning.example import Example
from dgr_lightning.files import read_jsonl
from dgr_lightning.models.chat import Chat
from dgr_lightning.models.scored_pairs import answer_pair, trace_pair
from dgr_lightning.shift import nll as nll_module
from dgr_lightning.shift.nll import choose_examples, nll, record_nll

WORDS = [f"w{i}" for i in range(20)]


@pytest.fixture(scope="module")
def chat():
    marks = ["<pad>", "<end>", "<user>", "<assistant>", "<think>", "</think>"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(marks + WORDS)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_tokens([AddedToken(mark, normalized=False) for mark in marks])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>")
    fast.chat_template = "<user> {{ messages[0].content }} <assistant> <think>"
    return Chat(fast)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
    return Qwen3ForCausalLM(Qwen3Config(vocab_size=26, num_hidden_layers=1, initializer_range=0.5, **sizes)).eval()


@pytest.fixture(scope="module")
def engine(model, chat):
    return TransformersEngine(model, chat, "fp32")


@pytest.fixture(scope="module")
def examples():
    def text(begin, number):
        return " ".join(WORDS[(begin + i) % 20] for i in range(number))

    # Of all lengths, out of order, some without a trace.
    return [
        Example(str(i), text(i, 1 + i % 5), text(2 * i, (7 * i) % 13), text(3 * i, 1 + i % 3), "harmful", "x")
        for i in range(150)
    ]


def by_hand(model, chat, example):
    """Part → sum and number of tokens, from the words: trace, closing mark, answer, end token."""
    prompt, target = chat.prompt_ids(example.prompt), chat.target_ids(example.trace, example.answer)
    with torch.no_grad():
        logits = model(torch.tensor([prompt + target])).logits[0, len(prompt) - 1 : -1]
    losses = torch.nn.functional.cross_entropy(logits, torch.tensor(target), reduction="none").tolist()
    num_trace = len(example.trace.split())
    parts = {"trace": losses[:num_trace], "answer": losses[num_trace + 1 : -1], "both": losses}
    assert len(parts["answer"]) == len(example.answer.split())
    return {part: (math.fsum(values), len(values)) for part, values in parts.items()}


@pytest.mark.parametrize("tokens_at_once", [1, 100, 2**16])
def test_nll_is_the_loss_of_each_part_given_what_precedes_it(chat, model, engine, examples, monkeypatch, tokens_at_once):
    monkeypatch.setattr(nll_module, "_TOKENS_AT_ONCE", tokens_at_once)
    measured = list(nll(engine, chat, iter(examples), max_length=100))
    assert [one.id for one in measured] == [example.id for example in examples]
    for example, one in zip(examples, measured, strict=True):
        for part, (total, tokens) in by_hand(model, chat, example).items():
            assert getattr(one, part).tokens == tokens
            assert getattr(one, part).total == pytest.approx(total, rel=1e-4, abs=1e-6)


def test_pairs_score_a_part_as_it_is_scored_in_its_example(chat, engine, examples):
    pairs = [trace_pair(chat, e.prompt, e.trace) for e in examples]
    pairs += [answer_pair(chat, e.prompt, e.trace, e.answer) for e in examples]
    scores = [-math.fsum(score) for score in engine.score(pairs)]
    measured = list(nll(engine, chat, examples, max_length=100))
    expected = [one.trace.total for one in measured] + [one.answer.total for one in measured]
    assert scores == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_a_long_example_counts_as_it_is_trained_on(chat, engine):
    long = Example("a", "w1", " ".join(["w2"] * 40), "w3 w4", "harmful", "x")
    short = Example("b", "w1", " ".join(["w2"] * 12), "w3 w4", "harmful", "x")
    cut, same = nll(engine, chat, [long, short], max_length=20)
    assert (cut.trace.tokens, cut.answer.tokens, cut.both.tokens) == (12, 2, 16)
    assert cut.both.total == pytest.approx(same.both.total, rel=1e-4)
    with pytest.raises(UserError, match=r"sft\.max_length"):
        list(nll(engine, chat, [long], max_length=7))


def test_a_summary_holds_means_perplexities_and_distributions_of_every_part(chat, model, engine, examples, tmp_path):
    path = tmp_path / "stages" / "shift-before.jsonl"
    summary = json.loads(json.dumps(record_nll(nll(engine, chat, iter(examples), 100), len(examples), path), allow_nan=False))
    assert summary["examples"] == len(examples)
    hand = [by_hand(model, chat, example) for example in examples]
    for part in ("trace", "answer", "both"):
        values = [one[part] for one in hand if one[part][1]]
        figures = summary[part]
        assert figures["tokens"] == sum(tokens for _, tokens in values)
        expected = math.fsum(total for total, _ in values) / figures["tokens"]
        assert figures["nll"]["value"] == pytest.approx(expected, rel=1e-4)
        assert figures["nll"]["low"] < expected < figures["nll"]["high"]
        assert figures["nll"]["n"] == len(values)
        for end in ("value", "low", "high"):
            assert figures["perplexity"][end] == pytest.approx(math.exp(figures["nll"][end]))
        means = [total / tokens for total, tokens in values]
        assert figures["quantiles"]["50"] == pytest.approx(float(np.median(means)), rel=1e-4)
        assert sum(figures["histogram"]["counts"]) == len(values)
    rows = list(read_jsonl(path))
    assert [row["id"] for row in rows] == [example.id for example in examples]
    assert math.fsum(row["both"]["total"] for row in rows) / sum(row["both"]["tokens"] for row in rows) == pytest.approx(
        summary["both"]["nll"]["value"]
    )


def test_a_set_without_traces_has_no_figures_of_them(chat, engine, tmp_path):
    example = Example("a", "w1", "", "w3 w4", "harmful", "x")
    summary = record_nll(nll(engine, chat, [example], 100), 1, tmp_path / "a.jsonl")
    assert summary["trace"] is None
    assert summary["answer"]["nll"]["n"] == 1 and summary["answer"]["nll"]["low"] is None


def test_the_examples_measured_are_the_same_before_and_after():
    ids = [f"star1-{i}" for i in range(1000)]
    chosen = choose_examples(ids, 100)
    assert len(chosen) == 100
    assert choose_examples(ids[::-1], 100) == chosen
    assert choose_examples(ids, 50) < chosen
    assert choose_examples(ids, None) == choose_examples(ids, 5000) == set(ids)
    # A choice by hash is spread over the set.
    assert 20 < len(chosen & set(ids[:500])) < 80


class FixedEngine:
    """Scores without a model."""

    def score(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        return [[-1.0] * len(target) for _, target in pairs]


def test_memory_stays_flat_over_a_long_set(chat, tmp_path, monkeypatch):
    monkeypatch.setattr(nll_module, "_TOKENS_AT_ONCE", 2**12)
    text = " ".join(["w1 w2 w3 w4"] * 25)

    def many(number):
        return (Example(f"x-{i}", text, text, "w1", "harmful", "x") for i in range(number))

    def peak(number):
        tracemalloc.start()
        measured = nll(FixedEngine(), chat, many(number), 1000)
        summary = record_nll(measured, number, tmp_path / "nll.jsonl")
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert summary["examples"] == number and summary["both"]["nll"]["value"] == pytest.approx(1.0)
        return most

    peak(10)  # what is made once
    small, large = peak(100), peak(1000)
    # Six numbers an example stay: some hundred bytes, where its ids alone take thousands.
    assert (large - small) / 900 < 500


@pytest.mark.slow
def test_generation_and_scoring_need_neither_hydra_nor_datasets():
    code = (
        "import sys, dgr_lightning.models.chat, dgr_lightning.generation.completions, dgr_lightning.shift.nll\n"
        "import dgr_lightning.engines.transformers.engine\n"
        "assert not {'hydra', 'omegaconf', 'datasets', 'lightning'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
