"""Loads a model from a local folder, without a network.

A folder whose weights are pickled, missing or of another shape is refused; `from_pretrained` would warn and use random ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.markup import escape
from torch import nn

from dgr_lightning.console import say
from dgr_lightning.errors import UserError, one_line
from dgr_lightning.models.folder import check_folder, weight_files
from dgr_lightning.models.quiet_imports import quiet_imports, quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

_LANGUAGE_MODEL = "causal language model"
# Loading less than this is too fast for a progress bar.
SILENT_BYTES = 2**30


def load_model(
    folder: Path, precision: str, device: str, trust_remote_code: bool = False, quantization: Any = None
) -> PreTrainedModel:
    """Loads a causal language model from a local folder, in eval mode, without touching the network.

    Args:
        folder: a Hugging Face folder with safetensors weights.
        precision: type of the weights: `bf16`, `fp32`, or `master`, which is fp32 for weights that training updates.
        device: cpu or cuda.
        trust_remote_code: run code in the folder, for models that transformers does not know.
        quantization: a quantization config of transformers, applied to each weight as it is loaded; None: none.

    Raises:
        UserError: the folder is not a complete model, its weights do not match its config, it is not a causal language model,
            or it needs code that is not trusted.
    """
    return _load(folder, precision, device, trust_remote_code, head=True, quantization=quantization)


def load_config(folder: Path, trust_remote_code: bool = False) -> PreTrainedConfig:
    """Returns the config of a local folder.

    Raises:
        UserError: transformers cannot read it, or it needs code that is not trusted.
    """
    from transformers import AutoConfig

    with _folder_to_blame(folder, "config"):
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=trust_remote_code
        )
    return config


def empty_model(folder: Path, trust_remote_code: bool = False, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Returns the causal language model of a folder's config on the meta device, without values.

    Raises:
        UserError: transformers cannot make one of it.
    """
    config = load_config(folder, trust_remote_code)
    with _folder_to_blame(folder, _LANGUAGE_MODEL):
        return config_model(config, trust_remote_code, dtype)


def config_model(
    config: PreTrainedConfig, trust_remote_code: bool = False, dtype: torch.dtype = torch.float32
) -> PreTrainedModel:
    """Returns the causal language model of a config on the meta device, without values; any error is transformers' own."""
    from transformers import AutoModelForCausalLM

    with quiet_imports(), torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=trust_remote_code)
    return model


def outline(folder: Path, trust_remote_code: bool = False) -> PreTrainedModel | None:
    """Returns the `empty_model` of a folder, for checks before anything is loaded; None if transformers cannot make one.

    The reason is in the message of `load_model`.
    """
    try:
        return empty_model(folder, trust_remote_code)
    except UserError:
        return None


def layers(model: PreTrainedModel) -> list[nn.Module]:
    """Returns the layers of a model, first to last: the modules that it names in `_no_split_modules`."""
    names = set(model._no_split_modules or ())
    # fully_shard replaces the class of a module by a subclass.
    return [module for module in model.modules() if names & {kind.__name__ for kind in type(module).__mro__}]


@contextmanager
def linear_weights_in(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Holds the fp32 weights of linear layers in another type, as autocast would cast them again at every step.

    Under autocast to that type the model computes the same to the bit. Weights that other modules use too (tied embeddings)
    stay. On leaving, the weights are the tensors that they were.
    """
    used: Counter[int] = Counter()
    for module in model.modules():
        used.update(id(weight) for weight in module._parameters.values() if weight is not None)
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    weights = [weight for module in linear for weight in module.parameters(recurse=False) if used[id(weight)] == 1]
    held = [(weight, weight.data) for weight in weights if weight.dtype == torch.float32]
    try:
        for weight, data in held:
            weight.data = data.to(dtype)
        yield
    finally:
        for weight, data in held:
            weight.data = data


def load_encoder(folder: Path, precision: str, device: str, trust_remote_code: bool = False) -> PreTrainedModel:
    """Loads a model without its head, so that its output is the last hidden states, as `load_model` does.

    Any text model is accepted: encoders such as BERT, and causal language models.

    Args:
        folder: a Hugging Face folder with safetensors weights.
        precision: type of the weights: `bf16` or `fp32`.
        device: cpu or cuda.
        trust_remote_code: as in `load_model`.

    Raises:
        UserError: as `load_model`.
    """
    return _load(folder, precision, device, trust_remote_code, head=False)


def _load(
    folder: Path, precision: str, device: str, trust_remote_code: bool, *, head: bool, quantization: Any = None
) -> PreTrainedModel:
    from transformers import AutoModel, AutoModelForCausalLM

    check_folder(folder, str(folder))
    # Weights that are quantised while loading must be loaded onto their device.
    place = {} if quantization is None else {"quantization_config": quantization, "device_map": {"": device}}
    size = sum(file.stat().st_size for file in weight_files(folder, str(folder)))
    kind, what = (AutoModelForCausalLM, _LANGUAGE_MODEL) if head else (AutoModel, "model of text")
    with _folder_to_blame(folder, what), quiet_transformers(bars=size >= SILENT_BYTES):
        loaded: Any = kind.from_pretrained(
            folder,
            dtype={"bf16": torch.bfloat16, "fp32": torch.float32, "master": torch.float32}[precision],
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=trust_remote_code,
            ignore_mismatched_sizes=True,  # they are refused below, with their names
            output_loading_info=True,
            **place,
        )
    model, loading = loaded
    # The pooler, a layer over an encoder's first token, is not used here, and many folders have none.
    missing = [name for name in loading["missing_keys"] if head or not name.startswith("pooler.")]
    unfilled = sorted(missing) + sorted(
        f"{name} (of another shape: {tuple(stored)} stored, {tuple(expected)} expected)"
        for name, stored, expected in loading["mismatched_keys"]
    )
    if unfilled:
        raise UserError(
            f"{folder}: config.json asks for weights that are not there: {_some(unfilled)}. "
            "Config and weights belong to different models: copy both from one repository."
        )
    # Without a head, the head's weights are expected to be unused.
    if loading["unexpected_keys"] and head:
        names = _some(sorted(loading["unexpected_keys"]))
        say(f"[yellow]{escape(str(folder))}: weights without a place in the model are left out: {escape(names)}[/]")
    return model.to(device).eval()


@contextmanager
def _folder_to_blame(folder: Path, what: str) -> Iterator[None]:
    """Turns an error of transformers over a folder's files into the user's; the memory and the device are not the folder's.

    Files of wrong types and sizes end in errors of any kind.
    """
    try:
        yield
    except (UserError, MemoryError, torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except Exception as error:
        raise UserError(f"{folder}: cannot be loaded as a {what}: {_cause(error)}") from error


def _cause(error: Exception) -> str:
    """Returns the beginning of a library's message, which may list all known models."""
    if "trust_remote_code" in str(error):
        return "it needs the code that lies in the folder. Read that code, then set model.trust_remote_code=true."
    # The words of others, such as a KeyError's, say little without their kind.
    plain = isinstance(error, ValueError | OSError | RuntimeError)
    return one_line(error if plain else f"{type(error).__name__}: {error}", 200)


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
