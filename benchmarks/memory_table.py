"""The memory that trainings of real models are planned with, as a Markdown table: GiB on each device.

    python -m benchmarks.memory_table
    python -m benchmarks.memory_table --devices 8 --rows 4096 16384

A cell is the peak without recomputing and with every layer recomputed, for one packed row of so many tokens in a step, all of
them targets. One device trains under autocast; several shard the weights (fsdp). Figures are planned from the models' configs,
not measured. The configs are those of deepseek-ai/DeepSeek-R1-Distill-Qwen-{1.5B,7B,14B,32B} on the Hugging Face hub.
"""

from __future__ import annotations

import argparse
from typing import Any

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


def settings(method: str, optimizer: str, devices: int) -> Config:
    """Returns the config of a training on GPUs in bf16."""
    cfg = Config()
    cfg.tuning.method = method
    sharded = devices > 1
    eight_bit = "adamw8bit-torchao" if sharded else "adamw8bit"
    cfg.sft.optimizer = eight_bit if optimizer == "8bit" else optimizer
    trainer = cfg.trainer
    trainer.accelerator, trainer.precision, trainer.devices = "cuda", "bf16", devices
    trainer.strategy = "fsdp" if sharded else "single"
    return cfg


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rows", type=int, nargs="+", default=[4096, 8192, 16384], help="tokens of the longest row")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    wanted = parser.parse_args()

    from transformers import AutoConfig

    from dgr_lightning.training.memory import RowSize, memory_plan
    from dgr_lightning.training.memory_sizes import ModelOutline

    outlines = {name: ModelOutline(AutoConfig.for_model(**QWEN2 | MODELS[name])) for name in wanted.models}
    print("| devices | model | trained | " + " | ".join(f"{tokens:,} tokens" for tokens in wanted.rows) + " |")
    print("| ---: | --- | --- |" + " ---: |" * len(wanted.rows))
    for devices in wanted.devices:
        for name, outline in outlines.items():
            for way, (method, optimizer) in WAYS.items():
                cfg = settings(method, optimizer, devices)
                cells = []
                for tokens in wanted.rows:
                    row = RowSize((tokens,), tokens, several=False)
                    plans = [memory_plan(outline, cfg, row, every) for every in (0, 1)]
                    cells.append(" / ".join(f"{plan.total / 2**30:.0f}" for plan in plans))
                print(f"| {devices} | {name} | {way} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
