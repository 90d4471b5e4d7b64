"""Choice of the next token: greedy, or nucleus sampling by inverse CDF with noise that belongs to the request.

The noise of a token is a pure function of (stage seed, request key, position), never of the batch that it is drawn in: one
uniform number in [0, 1) with 53 random bits, from SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number
generators", OOPSLA 2014) as a counter-based generator on the request's `noise_stream`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))

# Most probable tokens of a row that are looked at first. A trained model's nucleus nearly always fits; else the row is sorted.
_SHORTLIST = 64


def uniforms(streams: Tensor, positions: Tensor) -> Tensor:
    """Returns one uniform number in [0, 1) for each (stream, position): int64 (rows,) and (rows,) to float64 (rows,)."""
    state = streams + (positions + 1) * _signed(_GOLDEN)
    for shift, factor in _MIX:
        state = (state ^ _shift_right(state, shift)) * _signed(factor)
    state = state ^ _shift_right(state, 31)
    return _shift_right(state, 11).double() * 2.0**-53


def sample_tokens(logits: Tensor, temperature: float, top_p: float, noise: Tensor, top_k: int = 0) -> Tensor:
    """Returns the next token of each row.

    Probabilities are taken in fp32, their running sums in fp64. The nucleus is the smallest set of most probable tokens that
    together have at least `top_p` (Holtzman et al., "The curious case of neural text degeneration", ICLR 2020); the token is
    where the running sum over it, most probable first, passes noise times its mass.

    Args:
        logits: (rows, vocabulary), any float type.
        temperature: 0 takes the most probable token and needs no noise.
        top_p: in (0, 1]; 1 samples from the whole vocabulary, in the order of token ids.
        noise: float64 (rows,) in [0, 1).
        top_k: only so many most probable tokens have any probability, and those as probable as the last of them, as in
            transformers and vLLM; the nucleus is then taken of these. 0: all.

    Returns:
        int64 (rows,).
    """
    tokens, exact = sample_from_shortlist(logits, temperature, top_p, noise, top_k)
    wide = (~exact).nonzero()[:, 0]
    if len(wide):
        tokens[wide] = _choose_from_all(_probabilities(logits, temperature, top_k)[wide], top_p, noise[wide])
    return tokens


def sample_from_shortlist(
    logits: Tensor, temperature: float, top_p: float, noise: Tensor, top_k: int = 0
) -> tuple[Tensor, Tensor]:
    """Returns the next token of each row, and whether it is exact: not where a nucleus is wider than the shortlist.

    It does as `sample_tokens`, and takes what that takes, without ever waiting for the device. Both are (rows,).
    """
    if temperature == 0:
        tokens = logits.float().argmax(-1)
        return tokens, torch.ones_like(tokens, dtype=torch.bool)
    probabilities = _probabilities(logits, temperature, top_k)
    if top_p >= 1:
        tokens = _invert(probabilities.cumsum(-1, dtype=torch.float64), noise)
        return tokens, torch.ones_like(tokens, dtype=torch.bool)
    top, candidates = probabilities.topk(min(_SHORTLIST, probabilities.shape[-1]))
    index, complete = _index_in_nucleus(top, top_p, noise)
    whole = top.shape == probabilities.shape
    return candidates.gather(-1, index)[:, 0], torch.ones_like(complete) if whole else complete


def penalised(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Returns logits of which those of tokens that a row has seen are divided by a penalty, or multiplied where negative.

    The penalty of CTRL (Keskar et al. 2019, arXiv 1909.05858), as in transformers and vLLM: a token counts once, however often
    it was seen, and those of the prompt count too.

    Args:
        logits: (rows, vocabulary), any float type.
        seen: boolean (rows, vocabulary).
        penalty: above 0; above 1 discourages repetition.

    Returns:
        fp32 (rows, vocabulary).
    """
    logits = logits.float()
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def _probabilities(logits: Tensor, temperature: float, top_k: int) -> Tensor:
    scaled = logits.float() / temperature
    if 0 < top_k < scaled.shape[-1]:
        scaled = scaled.masked_fill(scaled < scaled.topk(top_k).values[:, -1:], -torch.inf)
    return torch.softmax(scaled, -1)


def _index_in_nucleus(descending: Tensor, top_p: float, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the index of each row's token among its most probable ones, (rows, 1), and whether those hold its nucleus."""
    sums = descending.cumsum(-1, dtype=torch.float64)
    # The sum before a token of the nucleus is less than top_p; the first token always is one.
    num_kept = (sums - descending < top_p).sum(-1, keepdim=True).clamp(min=1)
    mass = sums.gather(-1, num_kept - 1)
    index = torch.searchsorted(sums, noise[:, None] * mass, right=True).minimum(num_kept - 1)
    return index, ~(sums[:, -1] < top_p)


def _choose_from_all(probabilities: Tensor, top_p: float, noise: Tensor) -> Tensor:
    """Returns the token of each row from its whole vocabulary; among equally probable tokens, ids ascend."""
    # Only values are sorted, which NumPy does in a 25th of the time of torch's sort on a CPU.
    if probabilities.device.type == "cpu":
        descending = torch.from_numpy(np.sort(probabilities.numpy(), axis=-1)).flip(-1)
    else:
        descending = probabilities.sort(-1, descending=True).values
    index, _ = _index_in_nucleus(descending, top_p, noise)
    value = descending.gather(-1, index)
    rank_among_equals = index[:, 0] - (descending > value).sum(-1)
    rows, tokens = (probabilities == value).nonzero(as_tuple=True)
    first = torch.searchsorted(rows, torch.arange(len(probabilities), device=rows.device))
    return tokens[first + rank_among_equals]


def _invert(sums: Tensor, noise: Tensor) -> Tensor:
    total = sums[:, -1:].contiguous()
    index = torch.searchsorted(sums, noise[:, None] * total, right=True)
    # The product may round up to the total. The last token that adds to it is then meant, and never one behind it.
    last = torch.searchsorted(sums, total)
    return index.minimum(last)[:, 0].clamp(max=sums.shape[-1] - 1)


def _shift_right(value: Tensor, bits: int) -> Tensor:
    """Shifts a 64-bit word logically; torch's own shift is arithmetic."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word
