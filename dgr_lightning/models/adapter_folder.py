"""The folder of an adapter, as peft saves it: a change of a model's weights without the model; and the base that it belongs to.

Only names and small JSON files are read, as in `models/folder.py`; `training/merged_adapter.py` adds it to its base.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dgr_lightning.errors import UserError
from dgr_lightning.files import check_plain, exists, local_path
from dgr_lightning.hashes import content_hash, file_hash
from dgr_lightning.models.folder import ADAPTER_CONFIG, CHAT_RECORD, TOKENIZERS, read_object

ADAPTER_WEIGHTS = "adapter_model.safetensors"

TOKENIZER_FILES = (
    *TOKENIZERS,
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "chat_template.jinja",
    CHAT_RECORD,
)
"""Files with which an adapter's folder takes the place of its base's: trainers save the tokenizer that they trained with."""

# What says where the base lay on somebody's machine, or how the adapter was last loaded.
_NOT_CONTENT = ("base_model_name_or_path", "revision", "inference_mode", "auto_mapping", "peft_version")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Base:
    """The model that an adapter lies on: a local folder, or an id on the hub with its commit where one is known."""

    folder: Path | None
    hub_id: str | None = None
    revision: str | None = None


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no whole model."""
    return exists(folder / ADAPTER_CONFIG) and not exists(folder / "config.json")


def check_adapter(folder: Path, named: str) -> dict[str, Any]:
    """Checks that an adapter can be added to a model, and returns its adapter_config.json.

    Args:
        folder: with `is_adapter`.
        named: how the user named it, such as `model.path=out/adapter`.

    Raises:
        UserError: it is no LoRA adapter, its weights are missing or pickled, or it adds layers.
    """
    for file in sorted(folder.iterdir()):
        if file.exists():
            check_plain(file, f"{named}: {file.name}")
    config = read_object(folder / ADAPTER_CONFIG, named)
    kind = config.get("peft_type")
    if kind != "LORA":
        raise UserError(
            f"{named}: an adapter of the type {str(kind)[:40]}; only LORA is added to its base here. Merge it with peft and "
            "name the folder of the whole model."
        )
    if config.get("layer_replication"):
        raise UserError(f"{named}: its adapter repeats layers (layer_replication). Merge it with peft and name that folder.")
    if not (folder / ADAPTER_WEIGHTS).is_file():
        pickle = (folder / "adapter_model.bin").exists()
        raise UserError(
            f"{named}: its weights are a pickle (adapter_model.bin), which can run code when it is loaded. Save it again: "
            "model.save_pretrained(folder)."
            if pickle
            else f"{named}: no {ADAPTER_WEIGHTS} beside its {ADAPTER_CONFIG}. Copy it from where the adapter was saved."
        )
    return config


def base_of(folder: Path, base: str | None, named: str) -> Base:
    """Returns the base of an adapter; a local folder comes before an id on the hub.

    Args:
        folder: of the adapter.
        base: `model.base`; None: what adapter_config.json names.
        named: how the user named the adapter.

    Raises:
        UserError: it is neither a folder here nor an id on the hub, or an adapter itself.
    """
    config = read_object(folder / ADAPTER_CONFIG, named)
    wanted = base if base is not None else config.get("base_model_name_or_path")
    said = f"model.base={wanted}" if base is not None else f"{named}: its base is {wanted!r}"
    if not isinstance(wanted, str) or not wanted:
        raise UserError(f"{named}: {ADAPTER_CONFIG} names no base. Write model.base=<folder or id on the hub>.")
    place = local_path(wanted)
    if exists(place) and place.is_dir():
        if is_adapter(place):
            raise UserError(f"{said}, which is an adapter itself. Merge that one first, and name it with model.base=<folder>.")
        return Base(place)
    if _HUB_ID.fullmatch(wanted):
        revision = config.get("revision") if base is None else None
        return Base(None, wanted, revision if isinstance(revision, str) and revision else None)
    raise UserError(f"{said}, and there is no such folder here. Write model.base=<folder or id on the hub>.")


def adapter_hash(folder: Path) -> str:
    """Returns an adapter's content hash: weights, config without the place of its base, and its tokenizer, if it has one."""
    config = read_object(folder / ADAPTER_CONFIG, str(folder))
    kept = {key: value for key, value in config.items() if key not in _NOT_CONTENT}
    files = [folder / name for name in (ADAPTER_WEIGHTS, *TOKENIZER_FILES) if (folder / name).is_file()]
    return content_hash(kept, {file.name: file_hash(file) for file in files})
