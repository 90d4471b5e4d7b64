"""An adapter added to its base, once, as a whole model in the cache: every engine loads it, and its content names it.

LoRA's W + scale · B A by peft, in fp32 on the CPU, rounded once to the type of the base's weights.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from dgr_lightning.cache import cache_dir
from dgr_lightning.console import say
from dgr_lightning.errors import UserError, one_line
from dgr_lightning.files import write_json
from dgr_lightning.hashes import content_hash
from dgr_lightning.made_once import make_once
from dgr_lightning.models.adapter_folder import ADAPTER_WEIGHTS, TOKENIZER_FILES, adapter_hash
from dgr_lightning.models.folder import CODE_FILES, MERGED, TOKENIZERS
from dgr_lightning.models.model_hash import model_hash
from dgr_lightning.models.quiet_imports import quiet_imports, quiet_transformers
from dgr_lightning.models.weights import load_model
from dgr_lightning.training.export import SHARD_SIZE, stored_dtype

if TYPE_CHECKING:
    import torch

VERSION = 1
"""Part of a merged model's name: raise it when this code would write other weights for the same adapter and base."""


def merged(adapter: Path, base: Path, named: str, trust_remote_code: bool = False) -> Path:
    """Returns the folder of an adapter's whole model in the cache, made on first use; a second process waits for the first.

    Args:
        adapter: folder with `adapter_folder.is_adapter`.
        base: Hugging Face folder of its base.
        named: how the user named the adapter.
        trust_remote_code: run code in the base's folder.

    Raises:
        UserError: the adapter does not fit its base, or the base cannot be loaded.
    """
    content = {"adapter": adapter_hash(adapter), "base": model_hash(base), "version": VERSION}
    folder = cache_dir() / "merged" / content_hash(content)

    def make(partial: Path) -> None:
        say(f"adding {escape(str(adapter))} to its base, once")
        _write(adapter, base, partial, named, trust_remote_code)
        write_json(partial / MERGED, content)

    start = monotonic()
    if make_once(folder, make):
        say(f"the whole model is in {escape(str(folder))} ({monotonic() - start:.1f} s)")
    return folder


def _write(adapter: Path, base: Path, folder: Path, named: str, trust_remote_code: bool) -> None:
    from transformers import GenerationConfig

    model = _added(adapter, load_model(base, "fp32", "cpu", trust_remote_code), named)
    with quiet_transformers():
        model = model.to(stored_dtype(base))
        model.config.dtype = stored_dtype(base)
        model.generation_config = GenerationConfig()  # transformers may refuse to write the base's; its file is copied below
        model.save_pretrained(folder, max_shard_size=SHARD_SIZE)
    (folder / "generation_config.json").unlink(missing_ok=True)
    tokenizer = adapter if any((adapter / name).is_file() for name in TOKENIZERS) else base
    for source, patterns in ((base, ("generation_config.json", *CODE_FILES)), (tokenizer, TOKENIZER_FILES)):
        for pattern in patterns:
            for file in source.glob(pattern):
                shutil.copyfile(file, folder / file.name)


def _added(adapter: Path, model: Any, named: str) -> Any:
    """Returns a model with an adapter's change added to its weights; raises a UserError where the two do not fit."""
    with quiet_imports():
        from peft import LoraConfig, get_peft_model
        from peft.utils import set_peft_model_state_dict
        from safetensors.torch import load_file

    weights: dict[str, torch.Tensor] = load_file(adapter / ADAPTER_WEIGHTS)
    try:
        config = LoraConfig.from_pretrained(str(adapter))
        config.inference_mode = True
        wrapped = get_peft_model(model, config)
        result: Any = set_peft_model_state_dict(wrapped, weights)
        # Weights of the base are missing in every adapter; what the adapter itself trains must all be there.
        own = [name for name, _ in wrapped.named_parameters() if ".lora_" in name or ".modules_to_save." in name]
        missing = sorted(set(own) & set(result.missing_keys))
        if missing or result.unexpected_keys:
            odd = (missing or result.unexpected_keys)[0]
            raise ValueError(
                f"{len(missing)} of its weights are missing, {len(result.unexpected_keys)} too many, such as {odd}"
            )
        whole = wrapped.merge_and_unload(safe_merge=True)
    except (ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{named}: does not fit its base ({one_line(error, 200)}). Name the model that it was trained on with "
            "model.base=<folder or id on the hub>, or merge it yourself: model.merge_and_unload()."
        ) from error
    head, embeddings = whole.get_output_embeddings(), whole.get_input_embeddings()
    if head is not None and head.weight is not embeddings.weight:
        whole.config.tie_word_embeddings = False  # an adapter may have trained one of two weights that were one
    return whole
