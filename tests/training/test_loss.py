"""The loss of packed rows, and its gradients, are the textbook's."""

import pytest
import torch

from dgr_lightning.models.attention import Documents
from dgr_lightning.models.chat import Encoded
from dgr_lightning.training.loss import TargetLoss, summed_cross_entropy
from dgr_lightning.training.packing import IGNORED, collate
from tests.helpers.trainings import plain_loss, small_model


def documents() -> list[Encoded]:
    torch.manual_seed(1)
    return [
        Encoded(torch.randint(2, 96, (length,)).tolist(), prompt) for length, prompt in ((23, 9), (7, 3), (40, 31), (12, 1))
    ]


def num_targets(row) -> int:
    return int((row["labels"] != IGNORED).sum())


FAMILIES = [
    ("Qwen3", {"tie_word_embeddings": True, "head_dim": 8}),
    ("Qwen2", {"tie_word_embeddings": False}),
    ("Llama", {}),
    ("Granite", {"logits_scaling": 3.0, "attention_multiplier": 0.3}),  # its logits are not its output layer's
]


@pytest.mark.parametrize(("family", "changes"), FAMILIES)
@pytest.mark.parametrize("max_logits", [96 * 5, 2**27])
def test_packed_loss_and_gradients_are_the_unpacked_ones(family: str, changes: dict, max_logits: int) -> None:
    expected_model, model, encoded = small_model(family, **changes), small_model(family, **changes), documents()
    expected = plain_loss(expected_model, encoded)
    expected.backward()
    target_loss = TargetLoss(model)
    assert target_loss.isolates_documents and target_loss.can_fuse_head == (family != "Granite")
    row = collate(encoded)
    loss = target_loss(row, max_logits) / num_targets(row)
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for (name, weight), other in zip(model.named_parameters(), expected_model.parameters(), strict=True):
        torch.testing.assert_close(weight.grad, other.grad, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize(("family", "changes"), FAMILIES)
def test_with_the_mean_over_examples_every_document_weighs_the_same(family: str, changes: dict) -> None:
    expected_model, model, encoded = small_model(family, **changes), small_model(family, **changes), documents()
    assert len({len(document.ids) - document.num_prompt for document in encoded}) > 1
    expected = torch.stack([plain_loss(expected_model, [document]) for document in encoded]).mean()
    expected.backward()
    loss = TargetLoss(model)(collate(encoded, "examples"), 96 * 5) / len(encoded)
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for (name, weight), other in zip(model.named_parameters(), expected_model.parameters(), strict=True):
        torch.testing.assert_close(weight.grad, other.grad, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("own_attention", [False, True], ids=["by document", "the model's own"])
def test_changing_one_document_changes_no_logit_of_another(own_attention: bool) -> None:
    model = small_model("Qwen3")
    target_loss = TargetLoss(model)
    if own_attention:
        model.set_attn_implementation("sdpa")
    first, *rest = documents()
    logits = []
    for document in (first, Encoded(first.ids[::-1], first.num_prompt)):
        row = collate([document, *rest])
        with torch.no_grad():
            logits.append(target_loss._hidden(row["input_ids"], row["position_ids"], Documents(row["document_lengths"]))[0])
    length = len(first.ids)
    assert torch.equal(logits[0][length:], logits[1][length:])
    assert not torch.allclose(logits[0][:length], logits[1][:length], atol=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_model_that_mixes_documents_is_found_out(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    assert TargetLoss(small_model("Qwen3").to(dtype)).isolates_documents
    from dgr_lightning.models import attention

    def leak(*args, documents=None, **options):
        return honest(*args, **options)

    honest = attention.document_attention
    monkeypatch.setattr(attention, "document_attention", leak)
    assert not TargetLoss(small_model("Qwen3").to(dtype)).isolates_documents


def test_a_model_with_a_window_keeps_its_own_attention() -> None:
    model = small_model("Mistral", sliding_window=8)
    encoded = documents()
    expected = plain_loss(small_model("Mistral", sliding_window=8), encoded).item()
    target_loss = TargetLoss(model)
    row = collate(encoded)
    assert target_loss.isolates_documents
    assert (target_loss(row) / num_targets(row)).item() == pytest.approx(expected, rel=1e-6)


def test_short_documents_in_bf16_on_the_cpu_stay_close_to_fp32() -> None:
    target_loss, row = TargetLoss(small_model("Qwen3")), collate(documents())
    expected = target_loss(row).item()
    with torch.autocast("cpu", torch.bfloat16):
        found = target_loss(row)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected, rel=0.01) and found.item() != expected


@pytest.mark.parametrize("bias", [False, True])
def test_chunked_cross_entropy_is_the_plain_one(bias: bool) -> None:
    torch.manual_seed(0)
    head, labels = torch.nn.Linear(8, 50, bias=bias), torch.randint(0, 50, (23,))
    values = []
    for max_logits in (50 * 4, 2**27):
        hidden = torch.randn(23, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
        head.zero_grad()
        loss = summed_cross_entropy(head, hidden, labels, max_logits)
        loss.backward()
        values.append([loss.detach(), hidden.grad, *(weight.grad.clone() for weight in head.parameters())])
    torch.testing.assert_close(values[0], values[1], rtol=1e-5, atol=1e-6)
    expected = torch.nn.functional.cross_entropy(head(hidden), labels, reduction="sum")
    torch.testing.assert_close(values[0][0], expected.detach())
