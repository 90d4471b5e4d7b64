"""Attention document by document: in bf16 on the CPU it is SDPA's to rounding, whichever way a length goes."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from dgr_lightning.document_attention import document_attention


@pytest.mark.parametrize("lengths", [[100], [161], [256], [257], [700], [1100], [300, 40, 512]])
def test_in_bf16_it_is_causal_attention_within_documents(lengths: list[int]) -> None:
    generator = torch.Generator().manual_seed(0)
    heads, groups, size, total = 4, 2, 16, sum(lengths)
    query, key, value, upper = (
        torch.randn(1, total, count, size, generator=generator).transpose(1, 2) for count in (heads, groups, groups, heads)
    )
    query *= 4  # scores that matter: some weights near 1
    low = [tensor.bfloat16().requires_grad_() for tensor in (query, key, value)]
    high = [tensor.detach().float().requires_grad_() for tensor in low]
    with torch.autocast("cpu", torch.bfloat16):
        # As under rotary embeddings: queries and keys in fp32, values in autocast's type.
        found, _ = document_attention(
            torch.nn.Identity(), low[0].float(), low[1].float(), low[2], None, document_lengths=lengths
        )
    assert found.dtype == torch.bfloat16 and found.shape == (1, total, heads, size)
    pieces = [
        scaled_dot_product_attention(*document, is_causal=True, enable_gqa=True)
        for document in zip(*(tensor.split(lengths, 2) for tensor in high), strict=True)
    ]
    expected = torch.cat(pieces, 2).transpose(1, 2)
    upper = upper.transpose(1, 2)
    results = [found.detach(), *torch.autograd.grad(found, low, upper.bfloat16())]
    references = [expected.detach(), *torch.autograd.grad(expected, high, upper.bfloat16().float())]
    for result, reference in zip(results, references, strict=True):
        assert float((result.float() - reference).norm() / reference.norm()) < 0.01
