"""The default engine: what it generates depends on the request alone, and is what transformers itself would make of it."""

import random
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
)

from dgr_lightning.engines.engine import LENGTH, STOP, Request, noise_stream
from dgr_lightning.engines.transformers.engine import TransformersEngine
from dgr_lightning.errors import UserError
from tests.helpers.decoding import GREEDY, SAMPLED, SIZES, VOCABULARY, Numbers, generate, qwen3

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


def test_the_text_is_what_the_tokens_decode_to(model, requests):
    for completion in generate(model, requests[:8], SAMPLED).values():
        assert completion.text == Numbers().decode(completion.token_ids)


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


def test_nothing_is_generated_from_no_requests(model):
    assert generate(model, [], GREEDY) == {}


# Noise


def test_seed_key_and_position_each_change_the_noise(model, requests):
    assert len({noise_stream(0, "a"), noise_stream(1, "a"), noise_stream(0, "b")}) == 3
    whole = generate(model, requests, SAMPLED)
    assert generate(model, requests, replace(SAMPLED, seed=8)) != whole
    twins = [Request("a", requests[-1].prompt_ids), Request("b", requests[-1].prompt_ids)]
    completions = generate(model, twins, SAMPLED)
    assert completions["a"].token_ids != completions["b"].token_ids


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
