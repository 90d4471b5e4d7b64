"""Continuous batching: rows join and leave the batch, and none of that changes what is generated."""

import random
from dataclasses import replace

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from dgr_lightning.engines.engine import LENGTH, Request
from dgr_lightning.engines.transformers.engine import TransformersEngine
from tests.helpers.decoding import GREEDY, SAMPLED, VOCABULARY, Numbers, generate, qwen3


@pytest.mark.parametrize(
    "sampling",
    [GREEDY, SAMPLED, replace(SAMPLED, top_p=1.0), replace(SAMPLED, top_k=4), replace(SAMPLED, repetition_penalty=1.2)],
    ids=["greedy", "nucleus", "whole", "top_k", "penalty"],
)
def test_batches_do_not_change_what_is_generated(model, requests, sampling):
    alone = {request.key: completion for request in requests for completion in generate(model, [request], sampling, 1).values()}
    for batch_size in (2, 7, 16, 128):
        assert generate(model, requests, sampling, batch_size) == alone
    assert generate(model, requests[::-1][:20], sampling) == {
        request.key: alone[request.key] for request in requests[::-1][:20]
    }


def test_of_one_most_probable_token_sampling_is_greedy(model, requests):
    sampled = replace(SAMPLED, temperature=5.0, top_p=1.0, top_k=1)
    assert generate(model, requests, sampled) == generate(model, requests, GREEDY) != generate(model, requests, SAMPLED)


@pytest.mark.parametrize("penalty", [1.2, 1.0, 0.8])
def test_a_repetition_penalty_is_that_of_transformers(model, requests, penalty):
    """The prompt's tokens count too, and a greedy choice is penalised."""
    sampling = replace(GREEDY, repetition_penalty=penalty)
    found = generate(model, requests[:12], sampling, 5)
    for request in requests[:12]:
        ids = torch.tensor([request.prompt_ids])
        options = {"do_sample": False, "max_new_tokens": 24, "eos_token_id": list(GREEDY.stop_ids), "pad_token_id": 0}
        with torch.no_grad():
            theirs = model.generate(ids, repetition_penalty=penalty, **options)[0, ids.shape[1] :].tolist()
        theirs = theirs[:-1] if theirs[-1] in GREEDY.stop_ids else theirs
        assert list(found[request.key].token_ids) == theirs
    assert (penalty == 1) == (found == generate(model, requests[:12], GREEDY))


def test_a_request_may_have_a_limit_of_its_own(model, requests):
    free = replace(GREEDY, stop_ids=())
    limited = [replace(request, max_new_tokens=limit) for request, limit in zip(requests, (1, 9, 30, None), strict=False)]
    found = generate(model, limited, free)
    assert [len(found[request.key].token_ids) for request in limited] == [1, 9, 30, 24]


def test_a_budget_ends_where_the_positions_of_the_model_end():
    model = qwen3(max_position_embeddings=32)
    requests = [Request(f"r{n}", tuple(range(6, 6 + n))) for n in (30, 31, 32, 40, 5)]
    completions = generate(model, requests, replace(GREEDY, stop_ids=()))
    assert {key: len(completion.token_ids) for key, completion in completions.items()} == {
        "r30": 2,
        "r31": 1,
        "r32": 0,
        "r40": 0,
        "r5": 24,
    }
    assert {completion.finish_reason for completion in completions.values()} == {LENGTH}


def test_learned_positions_hold_up_to_the_last_one():
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=1, n_head=4, n_positions=20)).eval()
    requests = [Request(f"r{n}", tuple(range(6, 6 + n))) for n in (19, 12, 3, 2)]
    completions = generate(model, requests, replace(GREEDY, stop_ids=(), max_new_tokens=99))
    assert {key: len(completion.token_ids) for key, completion in completions.items()} == {
        "r19": 1,
        "r12": 8,
        "r3": 17,
        "r2": 18,
    }


@pytest.mark.slow
def test_requests_are_taken_when_there_is_room(model):
    taken = []

    def endless():
        for number in range(1000):
            taken.append(number)
            yield Request(f"r{number}", (7, 8, 6 + number % 50))

    stream = TransformersEngine(model, Numbers(), "fp32", 2).generate(endless(), GREEDY)
    next(stream)
    assert len(taken) < 100
    assert sum(1 for _ in stream) == 999


def test_slots_that_closed_up_open_again_for_those_who_come_later(model):
    """Most rows end at once, two go on; then many come: they are decoded together, not through the slots that were left."""
    rng = random.Random(1)
    prompt = [tuple(rng.randrange(6, VOCABULARY) for _ in range(250 if i < 28 else 5)) for i in range(30)]
    early = [Request(f"early{i}", prompt[i]) for i in range(30)]
    late = [Request(f"late{i}", prompt[i][:50]) for i in range(30)]
    sampling = replace(SAMPLED, max_new_tokens=120, stop_ids=())
    steps, arrived, found = [], [], {}

    def two_waves():
        yield from early
        while len(found) < 28:
            yield None
        arrived.append(len(steps))
        yield from late

    engine = TransformersEngine(model, Numbers(), "fp32", 32)
    hook = model.model.register_forward_hook(lambda module, args, output: steps.append(output.last_hidden_state.shape[:2]))
    for completion in engine.generate(two_waves(), sampling):
        found[completion.key] = completion
    hook.remove()
    assert found == generate(model, early, sampling) | generate(model, late, sampling)
    assert steps[arrived[0] - 1] == (2, 1), "closed up before the others came"
    assert max(rows for rows, length in steps[arrived[0] :] if length == 1) == 32


def test_completions_come_as_they_finish(model, requests):
    few = [*requests[:6], Request("long", requests[-1].prompt_ids)]
    engine = TransformersEngine(model, Numbers(), "fp32", 4)
    free = replace(SAMPLED, max_new_tokens=100, stop_ids=tuple(range(3, 20)))
    keys = [completion.key for completion in engine.generate(few, free)]
    lengths = generate(model, few, free)
    assert keys != sorted(keys, key=lambda key: -len(lengths[key].token_ids))
    stream = engine.generate(few, free)
    next(stream)
    stream.close()
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
