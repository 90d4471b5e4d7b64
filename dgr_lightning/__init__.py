"""Safety tuning of reasoning models on data that the target model has refined itself (DGR, arXiv 2602.02136)."""

import logging

# transformers, lightning and peft import these wherever they are installed, which then name every kernel that they cannot load.
for _name in ("torchao", "torch.utils._pytree", "bitsandbytes"):
    logging.getLogger(_name).setLevel(logging.ERROR)
