"""The noise of a token and the choice that it makes: a published generator, and inverse CDF over the nucleus."""

import pytest
import torch

from dgr_lightning.engines.engine import noise_stream
from dgr_lightning.engines.sampling import penalised, sample_tokens, uniforms


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


@pytest.mark.parametrize("vocabulary", [5, 64, 400])
@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.95, 0.9999, 1.0])
def test_sampling_is_inverse_cdf_over_the_nucleus(vocabulary, top_p):
    torch.manual_seed(0)
    logits = torch.randn(40, vocabulary) * torch.linspace(0.01, 6, 40)[:, None]
    noise = torch.rand(40, dtype=torch.float64)
    noise[:2] = torch.tensor([0.0, 1 - 2**-53])
    tokens = sample_tokens(logits, 0.7, top_p, noise).tolist()
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


@pytest.mark.parametrize("top_k", [1, 5, 20, 100])
@pytest.mark.parametrize("top_p", [0.5, 0.95, 1.0])
def test_top_k_comes_first_and_the_nucleus_is_taken_of_what_is_left(top_k, top_p):
    from transformers import TopKLogitsWarper, TopPLogitsWarper

    torch.manual_seed(0)
    logits = torch.randn(1, 80) * 2
    logits[0, :7] = 3.0  # equally probable ones, of which top_k=5 keeps all
    noise = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    noise[-1] = 1 - 2**-53
    tokens = sample_tokens(logits.expand(4000, -1), 0.7, top_p, noise, top_k)
    kept = TopPLogitsWarper(top_p)(None, TopKLogitsWarper(top_k)(None, logits / 0.7)) if top_p < 1 else None
    kept = TopKLogitsWarper(top_k)(None, logits / 0.7) if kept is None else kept
    expected = torch.softmax(kept, -1)[0]
    counts = torch.bincount(tokens, minlength=80) / 4000
    if 0 < top_p < 1:  # of equally probable tokens at the edge of a nucleus, transformers keeps other ones
        expected, counts = expected.sort().values, counts.sort().values
    torch.testing.assert_close(counts, expected, atol=0.001, rtol=0)
    assert (sample_tokens(logits, 0, top_p, noise[:1], top_k) == logits.argmax(-1)).all()


def test_equally_probable_tokens_outside_the_shortlist_are_all_drawn():
    # Half of the mass on one token, the other half on 200 equal ones, of which the nucleus takes some.
    logits = torch.zeros(1, 201).index_fill(1, torch.tensor([100]), float(torch.tensor(200.0).log()))
    noise = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    tokens = sample_tokens(logits.expand(1000, -1), 1.0, 0.75, noise)
    counts = torch.bincount(tokens, minlength=201)
    assert counts[100] in range(660, 673)
    assert (counts[:100] >= 3).all() and counts[:100].max() <= 4
    assert counts[101:].sum() <= 4


def test_sampled_frequencies_are_the_probabilities():
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0]).repeat(20_000, 1)
    streams = torch.tensor([noise_stream(0, str(i)) for i in range(20_000)])
    tokens = sample_tokens(logits, 1.0, 1.0, uniforms(streams, torch.zeros_like(streams)))
    frequencies = torch.bincount(tokens, minlength=4) / 20_000
    torch.testing.assert_close(frequencies, torch.softmax(logits[0], -1), atol=0.01, rtol=0)


def test_logits_that_are_not_numbers_give_some_token():
    logits = torch.full((3, 100), float("nan"))
    for temperature, top_p in ((0, 1.0), (1.0, 0.9), (1.0, 1.0)):
        tokens = sample_tokens(logits, temperature, top_p, torch.full((3,), 0.5, dtype=torch.float64))
        assert ((tokens >= 0) & (tokens < 100)).all()


@pytest.mark.parametrize("penalty", [1.2, 0.7])
def test_a_repetition_penalty_is_the_processor_of_transformers(penalty):
    from transformers import RepetitionPenaltyLogitsProcessor

    torch.manual_seed(0)
    logits, ids = torch.randn(9, 30) * 5, torch.randint(0, 30, (9, 12))
    seen = torch.zeros(9, 30, dtype=torch.bool).scatter_(1, ids, True)
    assert torch.equal(penalised(logits, seen, penalty), RepetitionPenaltyLogitsProcessor(penalty)(ids, logits.clone()))
