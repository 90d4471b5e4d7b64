"""The target model: where it lies, what it is (by content), and its weights in memory.

Local files beat the hub, and a local folder is loaded without a network. A folder whose weights are pickled, missing or of
another shape is refused, where `from_pretrained` would go on with random ones and a warning.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.markup import escape
from torch import nn

from dgr_lightning import torchrun
from dgr_lightning.cache import cache_dir
from dgr_lightning.config import ModelConfig, TrainerConfig
from dgr_lightning.console import say
from dgr_lightning.errors import UserError
from dgr_lightning.hub import fetch_model
from dgr_lightning.model_folder import CODE_FILES, INDEX, MODEL_FILES, WEIGHTS, check_folder, weight_files
from dgr_lightning.records import content_hash, file_hash, read_json, write_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Files from this size on have their hash remembered: 16 MiB are hashed in a hundredth of a second.
REMEMBERED_BYTES = 16 * 2**20
# Loading less than this takes no time worth a progress bar.
SILENT_BYTES = 2**30
# A file younger than this may be written again within the tick of the file system's clock.
SETTLED_SECONDS = 2.0


def locate(model: ModelConfig) -> Path:
    """Returns the local folder of the target model: `path`, else the recipe's (grown on first use), else the hub's.

    Raises:
        UserError: there is none to be had, or it is no whole model.
    """
    if model.path is not None:
        folder = Path(model.path).expanduser()
        check_folder(folder, f"model.path={model.path}")
        return folder
    if model.recipe is not None:
        from dgr_lightning.micro import build

        return build(model.seed, cache_dir(), resolve_precision("auto", "cpu"))
    if model.hub_id is None:
        raise UserError("model.path is not set: name a local Hugging Face folder, or choose another model=….")
    return fetch_model(model.hub_id, model.revision, with_code=model.trust_remote_code)


def model_content(folder: Path) -> str:
    """Returns 16 hex digits over what a model is: config, weights, tokenizer, chat template, code; not where it lies.

    Large files are hashed once: their hashes are remembered in `$DGR_CACHE/hashes.json` by size and time of change.

    Raises:
        UserError: the folder holds no whole model.
    """
    check_folder(folder, str(folder))
    weights = weight_files(folder, str(folder))
    others = {file for pattern in (*MODEL_FILES, *CODE_FILES) for file in folder.glob(pattern) if file.suffix != ".safetensors"}
    if weights[0].name == WEIGHTS:
        others.discard(folder / INDEX)  # left from an earlier save: the one file is what is loaded
    memory = _HashMemory(cache_dir() / "hashes.json")
    hashes = {file.name: memory.hash(file) for file in sorted({*weights, *others})}
    memory.save()
    return content_hash(hashes)


class _HashMemory:
    """SHA-256 of large files by absolute path, size and time of change."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, list[int | str]] = self._read()
        self.added: dict[str, list[int | str]] = {}

    def _read(self) -> dict[str, list[int | str]]:
        try:
            known = read_json(self.path)
        except (FileNotFoundError, ValueError):  # absent or damaged: it is only a memory
            return {}
        return known if isinstance(known, dict) else {}

    def hash(self, file: Path) -> str:
        """Returns the file's SHA-256, from memory if it is large and has not changed since."""
        stat = file.stat()
        key, state = str(file.resolve()), [stat.st_size, stat.st_mtime_ns]
        remembered = self.known.get(key)
        if remembered is not None and remembered[:2] == state:
            return str(remembered[2])
        digest = file_hash(file)
        if stat.st_size >= REMEMBERED_BYTES and time.time() - stat.st_mtime > SETTLED_SECONDS:
            self.added[key] = [*state, digest]
        return digest

    def save(self) -> None:
        """Adds what was hashed to the file, beside what other processes may have added meanwhile."""
        if self.added:
            write_json(self.path, self._read() | self.added)


def load_model(
    folder: Path, precision: str, device: str, trust_remote_code: bool = False, quantization: Any = None
) -> PreTrainedModel:
    """Loads a causal language model from a local folder, in eval mode, without touching the network.

    Args:
        folder: a Hugging Face folder with safetensors weights.
        precision: type of the weights: `bf16`; `fp32`; `master` is fp32 too, for weights that training updates.
        device: cpu or cuda.
        trust_remote_code: run code that lies in the folder, for models that transformers does not know.
        quantization: a quantization config of transformers, applied to each weight as it is loaded; None: none.

    Raises:
        UserError: the folder is no whole model, its weights do not fill its config, it is no causal language model, or it
            needs code that is not trusted.
    """
    return _load(folder, precision, device, trust_remote_code, head=True, quantization=quantization)


def empty_model(folder: Path, trust_remote_code: bool = False, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Returns the causal language model that a folder's config describes, on the meta device: without any values."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=trust_remote_code)
    return model


def outline(folder: Path, trust_remote_code: bool = False) -> PreTrainedModel | None:
    """Returns what `empty_model` does, to look at before anything is loaded; None where a folder holds no model to be trained.

    `load_model` says why, and is called first by whoever generates.
    """
    try:
        return empty_model(folder, trust_remote_code)
    except (ValueError, OSError):
        return None


def layers(model: PreTrainedModel) -> list[nn.Module]:
    """Returns the layers of a model, first to last: the modules that it says itself are not to be split."""
    whole = set(model._no_split_modules or ())
    # A sharded module's class is one of FSDP2's own, made of the model's.
    return [module for module in model.modules() if whole & {kind.__name__ for kind in type(module).__mro__}]


def load_encoder(folder: Path, precision: str, device: str, trust_remote_code: bool = False) -> PreTrainedModel:
    """Loads a model without its head, whose output is the last hidden states, as `load_model` does.

    Any model of text will do: encoders such as BERT, and causal language models.

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
    from safetensors import SafetensorError
    from transformers import AutoModel, AutoModelForCausalLM

    check_folder(folder, str(folder))
    # Weights that are quantised as they are loaded have to be loaded onto their device.
    place = {} if quantization is None else {"quantization_config": quantization, "device_map": {"": device}}
    size = sum(file.stat().st_size for file in weight_files(folder, str(folder)))
    try:
        with quiet_transformers(bars=size >= SILENT_BYTES):
            loaded: Any = (AutoModelForCausalLM if head else AutoModel).from_pretrained(
                folder,
                dtype={"bf16": torch.bfloat16, "fp32": torch.float32, "master": torch.float32}[precision],
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=trust_remote_code,
                ignore_mismatched_sizes=True,  # so that they can be named below
                output_loading_info=True,
                **place,
            )
    except (ValueError, OSError, SafetensorError) as error:
        what = "causal language model" if head else "model of text"
        raise UserError(f"{folder}: cannot be loaded as a {what}: {_cause(error)}") from error
    model, loading = loaded
    # One more layer over an encoder's first token, which nothing here uses; many come without it.
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
    # A model without its head has no place for the head's weights, of course.
    if loading["unexpected_keys"] and head:
        names = _some(sorted(loading["unexpected_keys"]))
        say(f"[yellow]{escape(str(folder))}: weights without a place in the model are left out: {names}[/]")
    return model.to(device).eval()


@contextmanager
def quiet_transformers(bars: bool = False) -> Iterator[None]:
    """Keeps transformers' reports off the screen (what is loaded is checked instead), and its bars unless asked for."""
    from transformers.utils import logging

    verbosity, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    if not bars:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bars:
            logging.enable_progress_bar()


def _cause(error: Exception) -> str:
    """Returns the beginning of a library's message, which may list every model there is."""
    if "trust_remote_code" in str(error):
        return "it needs the code that lies in the folder. Read that code, then set model.trust_remote_code=true."
    return " ".join(str(error).split())[:200]


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


# --- The machine ----------------------------------------------------------------------------------------------------------


def resolve_device(accelerator: str) -> str:
    """Returns `cpu` or `cuda`; `auto` takes a CUDA device where there is one.

    Raises:
        UserError: `cuda` is asked for and there is none.
    """
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise UserError("trainer.accelerator=cuda: PyTorch finds no CUDA device here. Set trainer.accelerator=auto or cpu.")
    if accelerator == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return accelerator


def resolve_devices(trainer: TrainerConfig) -> None:
    """Turns `trainer.devices=null` and `trainer.strategy=auto` into values, in place.

    Raises:
        UserError: more devices are asked for than there are.
    """
    if torchrun.is_there():
        started = torchrun.size()
        for key, asked, found in (("devices", trainer.devices, started[0]), ("nodes", trainer.nodes, started[1])):
            if asked not in (None, 1, found):
                raise UserError(f"trainer.{key}={asked}: torchrun started {found}; leave it to torchrun.")
        trainer.devices, trainer.nodes = started
    there = torch.cuda.device_count() if trainer.accelerator == "cuda" else 1
    if trainer.devices is None:
        trainer.devices = 1 if trainer.strategy == "single" else there
    if trainer.accelerator == "cuda" and trainer.devices > there:
        raise UserError(f"trainer.devices={trainer.devices}: PyTorch finds {there} CUDA devices here.")
    if trainer.strategy == "auto":
        trainer.strategy = "fsdp" if trainer.devices * trainer.nodes > 1 else "single"


def resolve_precision(value: str, device: str) -> str:
    """Returns `bf16` or `fp32`; `auto` takes bf16 where the device multiplies in it, not where it is emulated.

    On a CPU that is AVX512-BF16 or AMX (a 1024³ product took 15 ms there against 48 ms in fp32); without them, bf16 is the
    slower of the two.
    """
    if value != "auto":
        return value
    if device == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities()
        native = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return "bf16" if native else "fp32"
