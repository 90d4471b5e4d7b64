"""QLoRA's 4-bit weights (arXiv 2305.14314), and what bitsandbytes does to them on a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from dgr_lightning.errors import UserError
from dgr_lightning.models.quiet_imports import quiet_imports

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32, "uint8": torch.uint8}


def four_bit(storage: str, precision: str) -> Any:
    """Returns transformers' config of frozen weights in 4-bit NormalFloat, with the scales of their blocks quantized as well.

    They are packed into the type of the computation by default: the mixed precision of a sharded model casts weights of other
    float types, and a cast destroys packed values.

    Args:
        storage: `tuning.quant_storage`.
        precision: type of the computation, `bf16` or `fp32`.
    """
    with quiet_imports():
        from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=DTYPES[precision],
        bnb_4bit_quant_storage=DTYPES[precision if storage == "auto" else storage],
    )


def make_safe_on_cpu(model: PreTrainedModel) -> None:
    """Works around two faults of bitsandbytes 0.50 with 4-bit matrices on a CPU.

    At their first use outside training it repacks them for AVX512, which fails for narrow ones and is not undone for sharding:
    that is switched off. And it reads the scales of wrong blocks if a row is not a whole number of blocks, an error of 18 to
    33 % of the mean weight instead of 9 % (matrices of 64 × 32, 64 × 96 and 48 × 32): such rows are refused.

    Raises:
        UserError: the model has such rows.
    """
    with quiet_imports():
        from bitsandbytes.nn import Linear4bit

    for name, module in model.named_modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
            weight: Any = module.weight
            block = weight.blocksize
            if module.in_features % block:
                raise UserError(
                    f"tuning=qlora on a CPU: {name} has rows of {module.in_features} values, and bitsandbytes reads 4-bit rows "
                    f"wrongly there unless they are a multiple of {block}. Take tuning=lora, or trainer.accelerator=cuda."
                )
