"""Which token comes next: greedy, or nucleus sampling by inverse CDF with noise that belongs to the request.

The noise of a token is a pure function of (stage seed, request key, position), never of the batch that it is drawn in: one
uniform number in [0, 1) with 53 random bits, from SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number
generators", OOPSLA 2014) as a counter-based generator whose stream is a BLAKE2b hash of seed and key.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))

# A trained model's nucleus nearly always fits; where it does not, that row alone is sorted whole.
_SHORTLIST = 64


def noise_stream(seed: int, key: str) -> int:
    """Returns the stream of noise of a request, as a signed 64-bit integer."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{key}".encode(), digest_size=8).digest(), "little", signed=True)


def uniforms(streams: Tensor, positions: Tensor) -> Tensor:
    """Returns one uniform number in [0, 1) for each (stream, position): int64 (rows,) and (rows,) to float64 (rows,)."""
    state = streams + (positions + 1) * _signed(_GOLDEN)
    for shift, factor in _MIX:
        state = (state ^ _shift_right(state, shift)) * _signed(factor)
    state = state ^ _shift_right(state, 31)
    return _shift_right(state, 11).double() * 2.0**-53


def choose(logits: Tensor, temperature: float, top_p: float, noise: Tensor) -> Tensor:
    """Returns the next token of each row.

    Probabilities are taken in fp32, their running sums in fp64. The nucleus is the smallest set of most probable tokens that
    together have at least `top_p` (Holtzman et al., "The curious case of neural text degeneration", ICLR 2020); the token is
    where the running sum over it, most probable first, passes noise times its mass.

    Args:
        logits: (rows, vocabulary), any float type.
        temperature: 0 takes the most probable token and needs no noise.
        top_p: in (0, 1]; 1 samples from the whole vocabulary, in the order of token ids.
        noise: float64 (rows,) in [0, 1).

    Returns:
        int64 (rows,).
    """
    if temperature == 0:
        return logits.float().argmax(-1)
    probabilities = torch.softmax(logits.float() / temperature, -1)
    if top_p >= 1:
        return _invert(probabilities.cumsum(-1, dtype=torch.float64), noise)
    size = probabilities.shape[-1]
    tokens = _choose_from_nucleus(probabilities, top_p, noise, min(_SHORTLIST, size))
    wide = (tokens < 0).nonzero()[:, 0]
    if len(wide):
        tokens[wide] = _choose_from_nucleus(probabilities[wide], top_p, noise[wide], size)
    return tokens


def _choose_from_nucleus(probabilities: Tensor, top_p: float, noise: Tensor, size: int) -> Tensor:
    """Returns the token of each row, or -1 where the `size` most probable tokens do not hold the nucleus."""
    top, tokens = probabilities.topk(size)
    sums = top.cumsum(-1, dtype=torch.float64)
    # What comes before a token of the nucleus is less than top_p; the first token always is one.
    num_kept = (sums - top < top_p).sum(-1, keepdim=True).clamp(min=1)
    mass = sums.gather(-1, num_kept - 1)
    place = torch.searchsorted(sums, noise[:, None] * mass, right=True).minimum(num_kept - 1)
    chosen = tokens.gather(-1, place)[:, 0]
    if size == probabilities.shape[-1]:
        return chosen
    return torch.where(sums[:, -1] < top_p, -1, chosen)


def _invert(sums: Tensor, noise: Tensor) -> Tensor:
    place = torch.searchsorted(sums, (noise * sums[:, -1])[:, None], right=True)
    return place[:, 0].clamp(max=sums.shape[-1] - 1)


def _shift_right(value: Tensor, bits: int) -> Tensor:
    """The logical shift of a 64-bit word; torch has the arithmetic one."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word
