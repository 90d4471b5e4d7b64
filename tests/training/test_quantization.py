"""4-bit weights are packed, computed with and counted as the weights that they stand for."""

from pathlib import Path

import pytest
import torch

from dgr_lightning.config import TuningConfig
from dgr_lightning.errors import UserError
from dgr_lightning.models.weights import load_model
from dgr_lightning.training.adapters import targets
from dgr_lightning.training.flops import ModelFlops
from dgr_lightning.training.quantization import DTYPES
from dgr_lightning.training.tuning import load
from tests.helpers.trainings import (
    save_base,
)
from tests.helpers.tunings import WIDTHS, logits


def dequantised(model) -> dict[str, torch.Tensor]:
    """The matrices that a 4-bit model computes with, by name."""
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit

    return {
        name.replace(".base_layer", ""): dequantize_4bit(module.weight.data, module.weight.quant_state)
        for name, module in model.named_modules()
        if isinstance(module, Linear4bit)
    }


@pytest.mark.parametrize("storage", ["auto", "bf16", "fp32", "uint8"])
def test_qlora_packs_two_weights_into_a_byte_and_computes_with_them(any_base: Path, storage: str) -> None:
    wanted = TuningConfig(method="qlora", rank=2, quant_storage=storage)
    model = load(any_base, wanted, "fp32", "cpu", seed=1)
    plain = load_model(any_base, "fp32", "cpu")
    matrices = dequantised(model)
    assert list(matrices) == targets(plain, wanted)
    for name, matrix in matrices.items():
        packed = model.get_submodule(name).base_layer.weight
        assert packed.numel() * packed.element_size() == matrix.numel() / 2
        assert packed.dtype == DTYPES["fp32" if storage == "auto" else storage]
        assert packed.quant_state.quant_type == "nf4" and packed.quant_state.nested
        weight = plain.get_submodule(name).weight
        assert 0.01 < (matrix - weight).abs().mean() / weight.abs().mean() < 0.15
        weight.data = matrix
    torch.testing.assert_close(logits(model), logits(plain), rtol=1e-5, atol=1e-5)
    assert torch.equal(logits(model), logits(model))  # the first forward pass outside training repacks nothing


def test_the_operations_of_4_bit_matrices_are_those_of_the_matrices(wide_base: Path) -> None:
    flops = [
        ModelFlops.of(load(wide_base, TuningConfig(method=method, rank=2), "fp32", "cpu", 1)) for method in ("lora", "qlora")
    ]
    assert flops[0] == flops[1]


def test_rows_that_a_cpu_would_dequantise_wrongly_are_refused(tmp_path: Path) -> None:
    folder = save_base(tmp_path / "model", "Qwen2", **WIDTHS | {"intermediate_size": 96})
    load(folder, TuningConfig(method="lora", rank=2), "fp32", "cpu", 1)
    with pytest.raises(UserError, match=r"tuning=qlora on a CPU: model\.layers\.0\.mlp\.down_proj has rows of 96.*tuning=lora"):
        load(folder, TuningConfig(method="qlora", rank=2), "fp32", "cpu", 1)


def test_packed_weights_are_not_cast(wide_base: Path) -> None:
    model = load(wide_base, TuningConfig(method="qlora", rank=2), "fp32", "cpu", 1)
    for cast in (lambda: model.to(torch.bfloat16), model.half, model.float):
        with pytest.raises(ValueError, match=r"cast|not supported for quantized"):
            cast()
