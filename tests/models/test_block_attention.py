"""Attention by blocks of queries is SDPA's, whether weights are kept or computed again."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from dgr_lightning.models import block_attention as module
from dgr_lightning.models.block_attention import block_attention


def results(attend, tensors: list[torch.Tensor], upper: torch.Tensor) -> list[torch.Tensor]:
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    attended = attend(*leaves)
    return [attended.detach(), *torch.autograd.grad(attended, leaves, upper)]


@pytest.mark.parametrize("kept", [0, 1024], ids=["computed again", "kept"])
@pytest.mark.parametrize(("rows", "length", "heads", "groups"), [(1, 50, 1, 1), (2, 128, 6, 2), (1, 129, 2, 2), (2, 400, 6, 2)])
def test_in_fp32_it_is_sdpa(
    monkeypatch: pytest.MonkeyPatch, kept: int, rows: int, length: int, heads: int, groups: int
) -> None:
    monkeypatch.setattr(module, "_KEPT", kept)
    generator = torch.Generator().manual_seed(0)
    query, key, value, upper = (
        torch.randn(rows, length, count, 16, generator=generator).transpose(1, 2) for count in (heads, groups, groups, heads)
    )
    options = {"is_causal": True, "scale": 0.3, "enable_gqa": True}
    tensors = [3 * query, key, value]
    expected = results(lambda *tensors: scaled_dot_product_attention(*tensors, **options), tensors, upper)
    found = results(lambda *tensors: block_attention(*tensors, 0.3), tensors, upper)
    for one, other in zip(found, expected, strict=True):
        assert (one - other).norm() < 1e-5 * other.norm()


def test_other_products_in_fp32_stay_as_exact_as_they_were() -> None:
    """Its own may be computed by oneDNN "in bf16": their factors have that type."""
    settings = torch.backends.mkldnn.matmul
    before, seen = settings.fp32_precision, []
    query = torch.randn(1, 2, 200, 16, dtype=torch.bfloat16, requires_grad=True)
    query.register_hook(lambda grad: seen.append(settings.fp32_precision))
    block_attention(query, query, query, 0.25).sum().backward()
    assert [*seen, settings.fp32_precision] == [before, before]
    with pytest.raises(RuntimeError):
        block_attention(query, query[..., :8], query, 0.25)
    assert settings.fp32_precision == before
