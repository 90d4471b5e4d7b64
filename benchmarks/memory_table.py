"""The memory that trainings of real models are planned with, as a Markdown table: GiB on each device.

    python -m benchmarks.memory_table
    python -m benchmarks.memory_table --models 7B --rows 4096 16384

A cell is the peak without recomputing and with every layer recomputed, for one packed row of so many tokens in a step, all of
them targets, and layers that are not compiled. One device trains under autocast (`trainer.strategy=single`) or gathers its
weights in bf16 as eight do (`fsdp`, what `auto` takes there for all weights). Figures are planned from the models' configs, not
measured. The configs are those of deepseek-ai/DeepSeek-R1-Distill-Qwen-{1.5B,7B,14B,32B} on the Hugging Face hub.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for `python benchmarks/memory_table.py`

from dgr_lightning.config import Config

QWEN2 = {"model_type": "qwen2", "max_position_embeddings": 131072, "tie_word_embeddings": False, "use_sliding_window": False}
MODELS: dict[str, dict[str, Any]] = {
    "1.5B": {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12}
    | {"num_key_value_heads": 2, "vocab_size": 151936},
    "7B": {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28}
    | {"num_key_value_heads": 4, "vocab_size": 152064},
    "14B": {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 48, "num_attention_heads": 40}
    | {"num_key_value_heads": 8, "vocab_size": 152064},
    "32B": {"hidden_size": 5120, "intermediate_size": 27648, "num_hidden_layers": 64, "num_attention_heads": 40}
    | {"num_key_value_heads": 8, "vocab_size": 152064},
}
WAYS = {"full, adamw": ("full", "adamw"), "full, 8-bit adamw": ("full", "8bit"), "lora": ("lora", "adamw")} | {
    "qlora": ("qlora", "adamw")
}


PLACES = {"1, autocast": (1, "single"), "1, fsdp": (1, "fsdp"), "8, fsdp": (8, "fsdp")}


def settings(method: str, optimizer: str, devices: int, strategy: str) -> Config:
    """Returns the config of a training on GPUs in bf16."""
    cfg = Config()
    cfg.tuning.method = method
    eight_bit = "adamw8bit-torchao" if strategy == "fsdp" else "adamw8bit"
    cfg.sft.optimizer = eight_bit if optimizer == "8bit" else optimizer
    trainer = cfg.trainer
    trainer.accelerator, trainer.precision, trainer.devices = "cuda", "bf16", devices
    trainer.strategy = strategy
    return cfg


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[4096, 8192, 16384], help="tokens of the longest row")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    wanted = parser.parse_args()

    from transformers import AutoConfig

    from dgr_lightning.training.memory import RowSize, memory_plan
    from dgr_lightning.training.memory_sizes import ModelOutline

    outlines = {name: ModelOutline(AutoConfig.for_model(**QWEN2 | MODELS[name])) for name in wanted.models}
    print("| devices | model | trained | " + " | ".join(f"{tokens:,} tokens" for tokens in wanted.rows) + " |")
    print("| --- | --- | --- |" + " ---: |" * len(wanted.rows))
    for place, (devices, strategy) in PLACES.items():
        for name, outline in outlines.items():
            for way, (method, optimizer) in WAYS.items():
                if method != "full" and place == "1, fsdp":
                    continue  # frozen weights are bf16 already
                cfg = settings(method, optimizer, devices, strategy)
                cells = []
                for tokens in wanted.rows:
                    row = RowSize((tokens,), tokens, several=False)
                    plans = [memory_plan(outline, cfg, row, every) for every in (0, 1)]
                    cells.append(" / ".join(f"{plan.total / 2**30:.0f}" for plan in plans))
                print(f"| {place} | {name} | {way} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
