"""Attention document by document: on the CPU it is SDPA's to rounding, whichever way a length goes; varlen is tried first."""

import re
from collections.abc import Callable
from functools import wraps

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from dgr_lightning.distributed.fsdp import recompute
from dgr_lightning.models import attention as module
from dgr_lightning.models.attention import Documents, document_attention
from dgr_lightning.models.chat import Encoded
from dgr_lightning.training.loss import TargetLoss
from dgr_lightning.training.packing import collate
from tests.helpers.trainings import small_model


@pytest.mark.parametrize(
    ("rows", "lengths"),
    [
        *((1, lengths) for lengths in ([100], [161], [256], [257], [700], [1100], [300, 40, 512])),
        *((3, lengths) for lengths in ([100], [167], [300], [1100])),
    ],
)
def test_in_bf16_it_is_causal_attention_within_documents(rows: int, lengths: list[int]) -> None:
    generator = torch.Generator().manual_seed(0)
    heads, groups, size, total = 4, 2, 16, sum(lengths)
    query, key, value, upper = (
        torch.randn(rows, total, count, size, generator=generator).transpose(1, 2) for count in (heads, groups, groups, heads)
    )
    query *= 4  # scores that matter: some weights near 1
    low = [tensor.bfloat16().requires_grad_() for tensor in (query, key, value)]
    high = [tensor.detach().float().requires_grad_() for tensor in low]
    with torch.autocast("cpu", torch.bfloat16):
        # As under rotary embeddings: queries and keys in fp32, values in autocast's type.
        found, _ = document_attention(
            torch.nn.Identity(), low[0].float(), low[1].float(), low[2], None, documents=Documents(lengths)
        )
    assert found.dtype == torch.bfloat16 and found.shape == (rows, total, heads, size)
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


def varlen(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None, window_size=(-1, -1), enable_gqa=False):
    """What torch's documentation says of `varlen_attn`, whose kernels need a GPU: [tokens, heads, size], cut at `cu_seq`."""
    lengths = cu_seq_q.diff().tolist()
    assert torch.equal(cu_seq_q, cu_seq_k) and cu_seq_q.dtype == torch.int32 and sum(lengths) == len(query)
    assert max_q == max_k == max(lengths) and query.dtype == key.dtype == value.dtype
    documents = zip(*(tensor.transpose(0, 1)[None].split(lengths, 2) for tensor in (query, key, value)), strict=True)
    causal = {(-1, -1): False, (-1, 0): True}[window_size]
    attended = [
        scaled_dot_product_attention(*document, is_causal=causal, scale=scale, enable_gqa=enable_gqa) for document in documents
    ]
    return torch.cat(attended, 2)[0].transpose(0, 1)


def varlen_of_2_11(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux=None, scale=None, window_size=(-1, -1)):
    """Groups of heads are left to the kernel."""
    options = {"scale": scale, "window_size": window_size, "enable_gqa": query.shape[1] != key.shape[1]}
    return varlen(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, **options)


def varlen_of_2_10(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False, return_aux=None):
    window = (-1, 0) if is_causal else (-1, -1)
    return varlen_of_2_11(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, window_size=window)


@wraps(varlen)
def everything(*arguments, **options):
    """An attention that sees what comes after."""
    return varlen(*arguments, **options | {"window_size": (-1, -1)})


@pytest.fixture
def untried():
    module.varlen_is_sdpa.cache_clear()
    yield
    module.varlen_is_sdpa.cache_clear()


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("release", [varlen, varlen_of_2_11, varlen_of_2_10])
def test_varlen_attention_is_called_as_each_release_has_it(
    untried, monkeypatch: pytest.MonkeyPatch, release: Callable[..., torch.Tensor], groups: int
) -> None:
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", release)
    with torch.inference_mode():
        assert module.varlen_is_sdpa(torch.device("cpu"), torch.bfloat16, 16, groups)
    query, key, value = (torch.randn(1, heads, 60, 16) for heads in (2 * groups, 2, 2))
    expected, _ = document_attention(
        torch.nn.Identity(), query, key, value, None, scaling=0.3, documents=Documents([20, 1, 39])
    )
    ends = torch.tensor([0, 20, 21, 60], dtype=torch.int32)
    torch.testing.assert_close(module.varlen_attention(query, key, value, ends, 39, scaling=0.3), expected)


@pytest.mark.parametrize("every", [0, 1], ids=["kept", "computed again"])
def test_a_model_that_takes_varlen_attention_learns_the_same(untried, monkeypatch: pytest.MonkeyPatch, every: int) -> None:
    """Varlen is tried in the first layer of the first row, among what is computed again in the backward pass."""
    calls = []

    @wraps(varlen)
    def counted(*arguments, **options):
        calls.append(len(arguments[3]))
        return varlen(*arguments, **options)

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", counted)
    encoded = [Encoded(list(range(2, 2 + length)), 3) for length in (23, 7, 40)]
    outcomes = []
    for devices in ((), ("cpu",)):
        monkeypatch.setattr(module, "_FLASH_DEVICES", devices)
        model = small_model("Qwen3")
        target_loss = TargetLoss(model)
        recompute(model.train(), every)
        with torch.autocast("cpu", torch.bfloat16):
            loss = target_loss(collate(encoded))
        loss.backward()
        outcomes.append((loss.item(), model.model.layers[0].mlp.up_proj.weight.grad))
    assert calls.count(5) == (2 if every == 0 else 4)  # two layers; three documents and what fills up the row
    assert outcomes[1][0] == pytest.approx(outcomes[0][0], rel=1e-3)
    assert (outcomes[1][1] - outcomes[0][1]).norm() < 0.02 * outcomes[0][1].norm()


def test_varlen_attention_that_is_not_there_or_not_right_is_found_out(
    untried, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    cpu = torch.device("cpu")
    assert not module.varlen_is_sdpa(cpu, torch.bfloat16, 16, 2)  # torch's own has no kernel for the CPU
    assert "varlen attention cannot be used here (NotImplementedError: Could not run" in capfd.readouterr().out
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", everything)
    assert not module.varlen_is_sdpa(cpu, torch.bfloat16, 32, 2)
    assert re.search(r"it differs from SDPA by \d+\.\d%", capfd.readouterr().out)
