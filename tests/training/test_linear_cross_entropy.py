"""Cross entropy straight from hidden states: the plain one's values and gradients, in a chunk's memory."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from dgr_lightning.training.linear_cross_entropy import linear_cross_entropy
from dgr_lightning.training.loss import summed_cross_entropy
from tests.helpers.runs import ROOT

VOCABULARY, WIDTH, TOKENS = 211, 24, 150


def inputs(scale: float = 0.3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hidden states, a head's weight, labels of which some are ignored."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(TOKENS, WIDTH, generator=generator)
    weight = scale * torch.randn(VOCABULARY, WIDTH, generator=generator)
    labels = torch.randint(0, VOCABULARY, (TOKENS,), generator=generator)
    labels[[3, 70, 148, 149]] = -100
    return hidden.requires_grad_(), weight.requires_grad_(), labels


def plain(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return cross_entropy(hidden @ weight.T, labels, reduction="sum")


def gradients(loss: torch.Tensor, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    # Scaled, as a step's loss is: by the number of its target tokens.
    return torch.autograd.grad(loss / 146, tensors)


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
def test_in_fp32_it_is_the_plain_one(chunk: int) -> None:
    hidden, weight, labels = inputs()
    loss, expected = linear_cross_entropy(hidden, weight, labels, chunk * VOCABULARY), plain(hidden, weight, labels)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    found = gradients(loss, hidden, weight)
    for one, other in zip(found, gradients(expected, hidden, weight), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)
    assert not found[0][[3, 70, 148, 149]].any()


@pytest.mark.parametrize("chunk", [7, 1000])
def test_tokens_with_weights_count_as_much_in_loss_and_gradients(chunk: int) -> None:
    hidden, weight, labels = inputs()
    counts = torch.rand(TOKENS, generator=torch.Generator().manual_seed(1))
    expected = cross_entropy(hidden @ weight.T, labels, reduction="none") @ counts
    head = nn.Linear(WIDTH, VOCABULARY, bias=True)  # goes through the head as a module
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.zero_()
    wanted = torch.autograd.grad(expected, (hidden, weight))
    losses = [
        (linear_cross_entropy(hidden, weight, labels, chunk * VOCABULARY, counts), weight),
        (summed_cross_entropy(head, hidden, labels, chunk * VOCABULARY, counts), head.weight),
    ]
    for loss, matrix in losses:
        torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
        for found, other in zip(torch.autograd.grad(loss, (hidden, matrix)), wanted, strict=True):
            torch.testing.assert_close(found, other, rtol=1e-4, atol=1e-6)


def test_under_autocast_the_weight_gets_a_gradient_nearer_to_fp32_than_the_plain_way_gives() -> None:
    hidden, weight, labels = inputs()
    expected = gradients(plain(hidden, weight, labels), hidden, weight)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = plain(hidden, weight, labels)
        losses = {chunk: linear_cross_entropy(hidden, weight, labels, chunk * VOCABULARY) for chunk in (8, 1000)}
    usual = [error(one, other) for one, other in zip(gradients(rounded, hidden, weight), expected, strict=True)]
    for loss in losses.values():
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(plain(hidden, weight, labels).item(), rel=1e-3)
        found = gradients(loss, hidden, weight)
        assert all(gradient.dtype == torch.float32 for gradient in found)
        errors = [error(one, other) for one, other in zip(found, expected, strict=True)]
        assert errors[0] < 1.1 * usual[0] and errors[1] < 1.1 * usual[1] < 0.01


def test_many_chunks_lose_no_precision_in_the_gradient_of_a_weight_in_bf16() -> None:
    """As under FSDP2, where the gathered weight is bf16: the sum over chunks is rounded once, not at every chunk."""
    hidden, weight, labels = inputs()
    expected = gradients(plain(hidden, weight, labels), hidden, weight)
    low = [tensor.detach().bfloat16().requires_grad_() for tensor in (hidden, weight)]
    errors = {}
    for chunk in (2, 1000):
        found = gradients(linear_cross_entropy(*low, labels, chunk * VOCABULARY), *low)
        assert [gradient.dtype for gradient in found] == [torch.bfloat16] * 2
        errors[chunk] = error(found[1].float(), expected[1])
    assert errors[2] < 1.2 * errors[1000] < 0.012


def test_a_token_that_is_all_but_certain_keeps_the_little_gradient_that_it_has() -> None:
    hidden = torch.ones(1, 1, dtype=torch.bfloat16, requires_grad=True)
    weight = torch.tensor([[0.0], [9.0]], dtype=torch.bfloat16)  # the second has probability 1 − 1.2e-4
    (gradient,) = torch.autograd.grad(linear_cross_entropy(hidden, weight, torch.tensor([1])), hidden)
    assert gradient.item() == pytest.approx(-9 * torch.sigmoid(torch.tensor(-9.0)).item(), rel=0.02)


def test_large_logits_do_not_overflow() -> None:
    hidden, weight, labels = inputs(scale=300.0)
    loss, expected = linear_cross_entropy(hidden, weight, labels), plain(hidden, weight, labels)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    assert all(gradient.isfinite().all() for gradient in gradients(loss, hidden, weight))


def test_what_is_frozen_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    from dgr_lightning.training import linear_cross_entropy as module

    asked: list[bool] = []
    softmax = module._softmax_gradient

    def spy(logits, columns, block, with_gradient):
        asked.append(with_gradient)
        return softmax(logits, columns, block, with_gradient)

    monkeypatch.setattr(module, "_softmax_gradient", spy)
    monkeypatch.setattr(module, "_add_product", lambda *args, **options: pytest.fail("the weight is frozen"))
    hidden, weight, labels = inputs()
    frozen = weight.detach()
    loss = linear_cross_entropy(hidden, frozen, labels)
    torch.testing.assert_close(gradients(loss, hidden), gradients(plain(hidden, frozen, labels), hidden), rtol=1e-4, atol=1e-7)
    with torch.no_grad():
        assert linear_cross_entropy(hidden, weight, labels).item() == loss.item()
    assert asked == [True, False]


def test_no_token_at_all_is_a_loss_and_gradients_of_zero() -> None:
    hidden, weight, _ = inputs()
    loss = linear_cross_entropy(hidden[:0], weight, torch.empty(0, dtype=torch.long))
    assert loss.item() == 0 and not any(gradient.any() for gradient in gradients(loss, hidden, weight))


def test_a_tied_head_gets_the_gradients_of_both_its_uses() -> None:
    _, weight, labels = inputs()
    ids = torch.arange(TOKENS) % VOCABULARY
    found, expected = (gradients(loss(weight[ids], weight, labels), weight) for loss in (linear_cross_entropy, plain))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


class Adapted(nn.Module):
    """A head with a low-rank adapter beside it, as LoRA wraps one."""

    def __init__(self, head: nn.Linear) -> None:
        super().__init__()
        self.head, self.weight = head, head.weight
        self.adapter = nn.Linear(head.in_features, head.out_features, bias=False)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.head(hidden) + self.adapter(hidden)


@pytest.mark.parametrize("kind", ["plain", "bias", "adapter", "hook"])
def test_whatever_is_attached_to_a_head_counts(kind: str) -> None:
    torch.manual_seed(0)
    hidden, _, labels = inputs()
    head: nn.Module = nn.Linear(WIDTH, VOCABULARY, bias=kind == "bias")
    if kind == "adapter":
        head = Adapted(head)
    if kind == "hook":
        head.register_forward_hook(lambda module, args, logits: 2 * logits)
    weights = list(head.parameters())
    loss, expected = (
        summed_cross_entropy(head, hidden, labels, 5 * VOCABULARY),
        cross_entropy(head(hidden), labels, reduction="sum"),
    )
    torch.testing.assert_close(loss, expected)
    for one, other in zip(gradients(loss, *weights), gradients(expected, *weights), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


PEAK = """
import sys, torch
from dgr_lightning.training.linear_cross_entropy import linear_cross_entropy
hidden, weight = torch.randn(2048, 16, requires_grad=True), torch.randn(50_000, 16, requires_grad=True)
linear_cross_entropy(hidden, weight, torch.arange(2048), 64 * 50_000).backward()
from pathlib import Path
print(int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) // 1024)
"""


def test_its_memory_is_a_chunks() -> None:
    """All logits would be 391 MiB, and as much again for their gradient; a chunk is 12 MiB."""
    peaks = [
        int(subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True).stdout)
        for code in (
            PEAK,
            PEAK.replace("linear_cross_entropy(hidden, weight, ", "(lambda *all: all[0].sum())(hidden, weight, "),
        )
    ]
    assert peaks[0] - peaks[1] < 150
