"""Blocks of steps without a word from the host generate what steps one by one do, in shapes that never change."""

import random
from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dgr_lightning.engines.engine import Request
from dgr_lightning.engines.transformers import decoding, static_steps
from dgr_lightning.engines.transformers.engine import TransformersEngine
from dgr_lightning.engines.transformers.kv_cache import KeyValueCache
from dgr_lightning.engines.transformers.seen_tokens import SeenTokens
from dgr_lightning.engines.transformers.static_steps import StaticSteps
from tests.helpers.decoding import GREEDY, SAMPLED, VOCABULARY, Numbers, generate, qwen3
from tests.helpers.trainings import small_model

# What makes the host wait for the device: reading a number, or a shape that depends on numbers.
WAITING = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "unique", "_unique2", "masked_select", "item"}


@pytest.fixture
def in_blocks(monkeypatch):
    """Has the CPU decode in blocks of five, and counts the blocks and the steps made one by one."""
    monkeypatch.setitem(static_steps.BLOCK_STEPS, "cpu", 5)
    counts = {"blocks": 0, "steps": 0}

    def counting(name, real):
        def call(*args):
            counts[name] += 1
            return real(*args)

        return call

    monkeypatch.setattr(StaticSteps, "run", counting("blocks", StaticSteps.run))
    monkeypatch.setattr(decoding.ContinuousBatch, "_step", counting("steps", decoding.ContinuousBatch._step))
    return counts


@pytest.mark.parametrize(
    "sampling",
    [
        GREEDY,
        SAMPLED,
        replace(SAMPLED, top_p=0.99, temperature=3.0),
        replace(SAMPLED, top_p=1.0),
        replace(SAMPLED, top_k=4),
        replace(GREEDY, repetition_penalty=1.3),
        replace(SAMPLED, top_p=0.99, temperature=3.0, repetition_penalty=1.3),
    ],
    ids=["greedy", "nucleus", "wide", "whole", "top_k", "penalty", "wide with penalty"],
)
@pytest.mark.parametrize("batch_size", [pytest.param(1, marks=pytest.mark.slow), 7, 128])
def test_blocks_change_nothing_that_is_generated(model, requests, sampling, batch_size, in_blocks, monkeypatch):
    sampling = replace(sampling, max_new_tokens=90)
    found = generate(model, requests, sampling, batch_size)
    assert in_blocks["blocks"] > 0
    monkeypatch.setitem(static_steps.BLOCK_STEPS, "cpu", 1)
    blocks = in_blocks["blocks"]
    assert generate(model, requests, sampling, batch_size) == found and in_blocks["blocks"] == blocks


@pytest.mark.parametrize("family", ["Qwen2", "Llama"])
def test_other_families_and_bf16_decode_in_blocks(family, in_blocks, monkeypatch):
    model = small_model(family, 97)
    requests = [Request(str(index), tuple(range(6, 10 + index))) for index in range(9)]
    for precision in ("fp32", "bf16"):
        found = generate(model, requests, GREEDY, precision=precision)
        monkeypatch.setitem(static_steps.BLOCK_STEPS, "cpu", 1)
        same = sum(generate(model, requests, GREEDY, precision=precision)[key] == found[key] for key in found)
        assert same == 9 if precision == "fp32" else same >= 7
        monkeypatch.setitem(static_steps.BLOCK_STEPS, "cpu", 5)


def test_a_nucleus_wider_than_the_shortlist_is_sampled_step_by_step(model, requests, in_blocks):
    generate(model, requests[:8], replace(SAMPLED, top_p=0.99, temperature=3.0))
    wide = dict(in_blocks)
    in_blocks.update(blocks=0, steps=0)
    generate(model, requests[:8], GREEDY)
    assert in_blocks["steps"] < in_blocks["blocks"] + 4 and wide["steps"] >= wide["blocks"]


class Watch(TorchDispatchMode):
    """Notes what is called, and the shapes that come out of it."""

    def __init__(self):
        super().__init__()
        self.names, self.shapes = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.names.append(func.__name__.split(".")[0])
        self.shapes.append([tuple(value.shape) for value in tree_leaves(result) if isinstance(value, torch.Tensor)])
        return result


def watched(monkeypatch, owner) -> list[Watch]:
    """Watches every single step of a class that decodes."""
    seen, real = [], owner._step

    def step(self):
        with Watch() as watch:
            result = real(self)
        seen.append(watch)
        return result

    monkeypatch.setattr(owner, "_step", step)
    return seen


@pytest.mark.parametrize(
    "sampling",
    [GREEDY, SAMPLED, replace(SAMPLED, top_k=4), replace(SAMPLED, repetition_penalty=1.2)],
    ids=["greedy", "nucleus", "top_k", "penalty"],
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_of_a_block_waits_for_nothing_and_has_the_shapes_of_the_one_before(
    model, sampling, precision, in_blocks, monkeypatch
):
    rng = random.Random(1)
    requests = [Request(f"r{i}", tuple(rng.randrange(6, 97) for _ in range(3 + i))) for i in range(6)]
    in_block, one_by_one = watched(monkeypatch, StaticSteps), watched(monkeypatch, decoding.ContinuousBatch)
    generate(model, requests, replace(sampling, stop_ids=(), max_new_tokens=40), precision=precision)
    assert len(in_block) >= 30
    assert {name for watch in in_block for name in watch.names} & WAITING == set()
    assert all(watch.shapes == in_block[0].shapes for watch in in_block[1:])
    if sampling.temperature:
        assert "nonzero" in one_by_one[0].names, "the watch sees what waits"


def test_a_step_runs_where_there_are_no_numbers_to_read():
    """Of a fake tensor every look at a number is an error."""
    with FakeTensorMode(), torch.inference_mode():
        cache = KeyValueCache(torch.float32, torch.device("cpu"), 3, end=4)
        cache.allocate([torch.empty(3, 2, 4, 8)] * 4, 10, min_slots=1)
        seen = SeenTokens(1.2, VOCABULARY, torch.device("cpu"))
        seen.start(3)
        steps = StaticSteps(qwen3(), cache, torch.zeros(5, 3, dtype=torch.long), SAMPLED, 255, seen)
        steps._step()
        with pytest.raises(DataDependentOutputException):
            steps._found.tolist()


def test_a_step_that_cannot_be_recorded_is_made_one_by_one_and_said_once(model, requests, in_blocks, monkeypatch, capsys):
    expected = generate(model, requests, SAMPLED)

    def refuse(*args):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(decoding, "StaticSteps", refuse)
    in_blocks["blocks"] = 0
    assert generate(model, requests, SAMPLED) == expected and in_blocks["blocks"] == 0
    printed = capsys.readouterr().out
    assert printed.count("cannot be recorded: operation not permitted when stream is capturing") == 1


def test_a_model_in_training_is_left_as_it_was_by_blocks(requests, in_blocks):
    model = qwen3().train()
    engine = TransformersEngine(model, Numbers(), "bf16")
    list(engine.generate(requests[:5], GREEDY))
    assert in_blocks["blocks"] and model.training
    model(input_ids=torch.tensor([[7, 8, 9]])).logits.sum().backward()
