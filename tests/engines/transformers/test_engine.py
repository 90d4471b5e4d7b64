"""The default engine: what it generates depends on the request alone, and is what transformers itself would make of it."""

import random
from collections import Counter
from dataclasses import replace

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from dgr_lightning.engines.engine import LENGTH, STOP, Completion, Request, Sampling
from dgr_lightning.engines.sampling import choose, noise_stream, uniforms
from dgr_lightning.engines.transformers.engine import TransformersEngine
from dgr_lightning.engines.transformers.kv_cache import SlotCache
from dgr_lightning.errors import UserError
from tests.helpers import trainings

VOCABULARY = 97
SIZES = trainings.SIZES | {"vocab_size": VOCABULARY, "initializer_range": 0.3}
GREEDY = Sampling(temperature=0, top_p=1.0, max_new_tokens=24, seed=0, stop_ids=(3, 4, 5))
SAMPLED = Sampling(temperature=1.0, top_p=0.9, max_new_tokens=24, seed=7, stop_ids=(3, 4, 5))


class Numbers:
    """Decodes to the numbers themselves."""

    pad_id = 0

    def decode(self, ids):
        return " ".join(map(str, ids))


def qwen3(**changes):
    torch.manual_seed(0)
    return Qwen3ForCausalLM(Qwen3Config(**SIZES | {"head_dim": 8, "tie_word_embeddings": True} | changes)).eval()


MODELS = {
    "qwen3, tied": qwen3,
    "qwen2, untied, no pad": lambda: Qwen2ForCausalLM(
        Qwen2Config(**SIZES, tie_word_embeddings=False, use_sliding_window=False, sliding_window=16, pad_token_id=None)
    ).eval(),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)).eval(),
    "gpt2, learned positions": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=256, initializer_range=0.3)
    ).eval(),
}


@pytest.fixture(scope="module")
def model():
    return qwen3()


@pytest.fixture(scope="module")
def requests():
    rng = random.Random(0)
    lengths = [1, 2, 2, 3, *(rng.randint(4, 60) for _ in range(45)), 60]
    return [Request(f"r{i}", tuple(rng.randrange(6, VOCABULARY) for _ in range(length))) for i, length in enumerate(lengths)]


def generate(model, requests, sampling, batch_size=128, precision="fp32") -> dict[str, Completion]:
    completions = list(TransformersEngine(model, Numbers(), precision, batch_size).generate(requests, sampling))
    assert Counter(completion.key for completion in completions) == Counter(request.key for request in requests)
    return {completion.key: completion for completion in completions}


# Greedy


@pytest.mark.parametrize("name", MODELS)
def test_greedy_is_what_transformers_generates_from_the_prompt_alone(name, requests):
    torch.manual_seed(1)
    model = MODELS[name]()
    completions = generate(model, requests, GREEDY, batch_size=8)
    for request in requests:
        with torch.no_grad():
            ids = model.generate(
                torch.tensor([request.prompt_ids]), do_sample=False, max_new_tokens=24, eos_token_id=[3, 4, 5], pad_token_id=0
            )
        expected = ids[0, len(request.prompt_ids) :].tolist()
        stopped = expected[-1] in (3, 4, 5)
        assert completions[request.key].token_ids == tuple(expected[: len(expected) - stopped])
        assert completions[request.key].finish_reason == (STOP if stopped else LENGTH)
    assert len({completion.finish_reason for completion in completions.values()}) == 2


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED, replace(SAMPLED, top_p=1.0)], ids=["greedy", "nucleus", "whole"])
def test_batches_do_not_change_what_is_generated(model, requests, sampling):
    alone = {request.key: completion for request in requests for completion in generate(model, [request], sampling, 1).values()}
    for batch_size in (2, 7, 16, 128):
        assert generate(model, requests, sampling, batch_size) == alone
    assert generate(model, requests[::-1][:20], sampling) == {
        request.key: alone[request.key] for request in requests[::-1][:20]
    }


def test_generation_longer_than_the_cache_first_made(model, requests):
    sampling = replace(SAMPLED, max_new_tokens=190, stop_ids=(3,))
    few = [request for request in requests if len(request.prompt_ids) < 40][:12]
    completions = generate(model, few, sampling, 4)
    assert completions == generate(model, few, sampling, 128)
    assert max(len(completion.token_ids) for completion in completions.values()) == 190


def test_rows_that_memory_has_no_room_for_come_back_and_end_the_same(model, requests, monkeypatch):
    sampling = replace(SAMPLED, max_new_tokens=150, stop_ids=(3,))
    expected = generate(model, requests[:30], sampling)
    room = iter([11, 9, 6, 3, 14, 2, 1] * 100)
    monkeypatch.setattr(SlotCache, "_num_fitting", lambda self, shapes: next(room))
    assert generate(model, requests[:30], sampling) == expected
    assert next(room) is not None


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


def test_the_text_is_what_the_tokens_decode_to(model, requests):
    for completion in generate(model, requests[:8], SAMPLED).values():
        assert completion.text == Numbers().decode(completion.token_ids)


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


def test_a_request_may_depend_on_an_earlier_completion(model, requests):
    """Chains of three, a link asked for when the one before it is there, beside rows that are long under way."""
    waiting = [Request(f"{request.key}/0", request.prompt_ids) for request in requests[:12]]
    num_open = 0

    def chained():
        while waiting or num_open:
            yield waiting.pop() if waiting else None

    found = {}
    engine = TransformersEngine(model, Numbers(), "fp32", 8)
    prompts = {request.key: request.prompt_ids for request in requests}
    num_open = len(waiting)
    for completion in engine.generate(chained(), SAMPLED):
        found[completion.key] = completion
        name, _, link = completion.key.rpartition("/")
        num_open -= 1
        if link < "2":
            num_open += 1
            waiting.append(Request(f"{name}/{int(link) + 1}", (*prompts[name], *completion.token_ids)[:60]))
    assert len(found) == 36
    for key, completion in found.items():
        name, _, link = key.rpartition("/")
        before = () if link == "0" else found[f"{name}/{int(link) - 1}"].token_ids
        (alone,) = generate(model, [Request(key, (*prompts[name], *before)[:60])], SAMPLED).values()
        assert completion == alone


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


def test_nothing_is_generated_from_no_requests(model):
    assert generate(model, [], GREEDY) == {}


# Noise


def test_noise_is_the_published_generator_and_uniform():
    # Outputs of Vigna's splitmix64.c from state 0.
    words = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    numbers = uniforms(torch.zeros(3, dtype=torch.long), torch.arange(3))
    assert numbers.tolist() == [(word >> 11) * 2.0**-53 for word in words]
    streams = torch.tensor([noise_stream(0, f"example-{i}/trace/0") for i in range(500)])
    many = torch.stack([uniforms(streams, torch.full_like(streams, position)) for position in range(200)]).flatten()
    assert many.min() >= 0 and many.max() < 1
    counts = torch.histc(many.float(), bins=20, min=0, max=1)
    # Chi-square with 19 degrees of freedom: 43.8 is passed once in a thousand.
    assert ((counts - 5000) ** 2 / 5000).sum() < 43.8


def test_seed_key_and_position_each_change_the_noise(model, requests):
    assert len({noise_stream(0, "a"), noise_stream(1, "a"), noise_stream(0, "b")}) == 3
    whole = generate(model, requests, SAMPLED)
    assert generate(model, requests, replace(SAMPLED, seed=8)) != whole
    twins = [Request("a", requests[-1].prompt_ids), Request("b", requests[-1].prompt_ids)]
    completions = generate(model, twins, SAMPLED)
    assert completions["a"].token_ids != completions["b"].token_ids


@pytest.mark.parametrize("vocabulary", [5, 64, 400])
@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.95, 0.9999, 1.0])
def test_sampling_is_inverse_cdf_over_the_nucleus(vocabulary, top_p):
    torch.manual_seed(0)
    logits = torch.randn(40, vocabulary) * torch.linspace(0.01, 6, 40)[:, None]
    noise = torch.rand(40, dtype=torch.float64)
    noise[:2] = torch.tensor([0.0, 1 - 2**-53])
    tokens = choose(logits, 0.7, top_p, noise).tolist()
    for row in range(40):
        probabilities = torch.softmax(logits[row] / 0.7, -1).double()
        order = range(vocabulary) if top_p == 1 else probabilities.argsort(descending=True).tolist()
        kept, mass = [], 0.0
        for token in order:
            if mass >= top_p:
                break
            kept.append(token)
            mass += probabilities[token].item()
        below = 0.0
        for token in kept:
            below += probabilities[token].item()
            if below > noise[row].item() * mass:
                break
        assert tokens[row] == token


def test_equally_probable_tokens_outside_the_shortlist_are_all_drawn():
    # Half of the mass on one token, the other half on 200 equal ones, of which the nucleus takes some.
    logits = torch.zeros(1, 201).index_fill(1, torch.tensor([100]), float(torch.tensor(200.0).log()))
    noise = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    tokens = choose(logits.expand(1000, -1), 1.0, 0.75, noise)
    counts = torch.bincount(tokens, minlength=201)
    assert counts[100] in range(660, 673)
    assert (counts[:100] >= 3).all() and counts[:100].max() <= 4
    assert counts[101:].sum() <= 4


def test_sampled_frequencies_are_the_probabilities():
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0]).repeat(20_000, 1)
    streams = torch.tensor([noise_stream(0, str(i)) for i in range(20_000)])
    tokens = choose(logits, 1.0, 1.0, uniforms(streams, torch.zeros_like(streams)))
    frequencies = torch.bincount(tokens, minlength=4) / 20_000
    torch.testing.assert_close(frequencies, torch.softmax(logits[0], -1), atol=0.01, rtol=0)


def test_logits_that_are_not_numbers_give_some_token():
    logits = torch.full((3, 100), float("nan"))
    for temperature, top_p in ((0, 1.0), (1.0, 0.9), (1.0, 1.0)):
        tokens = choose(logits, temperature, top_p, torch.full((3,), 0.5, dtype=torch.float64))
        assert ((tokens >= 0) & (tokens < 100)).all()


# Scoring


@pytest.mark.parametrize("name", MODELS)
def test_scores_are_the_log_probabilities_of_every_target_token(name, requests, monkeypatch):
    monkeypatch.setattr("dgr_lightning.engines.transformers.engine.PREFILL_TOKENS", {"cpu": 150})
    model = MODELS[name]()
    rng = random.Random(1)
    pairs = [(request.prompt_ids, [rng.randrange(VOCABULARY) for _ in range(rng.randint(0, 30))]) for request in requests]
    scores = TransformersEngine(model, Numbers(), "fp32").score(pairs)
    assert [len(own) for own in scores] == [len(target) for _, target in pairs]
    for (prompt, target), own in zip(pairs, scores, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *target]])).logits[0]
        expected = torch.log_softmax(logits, -1)[len(prompt) - 1 : -1].gather(-1, torch.tensor(target)[:, None].long())
        torch.testing.assert_close(torch.tensor(own), expected[:, 0], atol=1e-4, rtol=1e-4)


# Precision and live models


def test_bf16_weights_and_autocast_agree_mostly(requests):
    fp32 = generate(qwen3(), requests, GREEDY)
    for model in (qwen3().to(torch.bfloat16), qwen3()):
        completions = generate(model, requests, GREEDY, precision="bf16")
        first = [completions[key].token_ids[:1] == fp32[key].token_ids[:1] for key in fp32]
        assert sum(first) / len(first) > 0.8
        assert completions != fp32


def test_precision_fp32_needs_fp32_weights():
    with pytest.raises(ValueError, match="fp32"):
        TransformersEngine(qwen3().to(torch.bfloat16), Numbers(), "fp32")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_model_in_training_is_left_as_it_was(requests, precision):
    model = qwen3(attention_dropout=0.5, use_cache=False)
    expected = generate(model, requests[:10], GREEDY, precision=precision)
    model.train()
    model.model.layers[1].eval()
    modes = [module.training for module in model.modules()]
    attention = model.config._attn_implementation
    engine = TransformersEngine(model, Numbers(), precision)
    assert {completion.key: completion for completion in engine.generate(requests[:10], GREEDY)} == expected
    engine.score([((6, 7), (8, 9))])
    assert [module.training for module in model.modules()] == modes
    assert (model.config._attn_implementation, model.config.use_cache) == (attention, False)
    assert not any(parameter.is_inference() for parameter in model.parameters())
    model(torch.tensor([[6, 7, 8]])).logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_new_weights_are_used_at_once(requests):
    model = qwen3()
    engine = TransformersEngine(model, Numbers(), "bf16")
    before = list(engine.generate(requests[:5], GREEDY))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(-1.5)
    assert list(engine.generate(requests[:5], GREEDY)) != before


def test_sliding_windows_are_refused():
    model = MistralForCausalLM(MistralConfig(**SIZES, sliding_window=8))
    with pytest.raises(UserError, match="sliding_attention"):
        TransformersEngine(model, Numbers(), "fp32")
