"""The files of a Hugging Face model folder, and checks that a folder is a complete model.

Only names and small JSON files are read, because the command line checks them before anything heavy is imported.
"""

from __future__ import annotations

import json
from pathlib import Path

from dgr_lightning.errors import UserError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
# A key of this project in config.json, kept through training and export.
LANGUAGE = "dgr_language"
# How an exported model was prompted and parsed; `models/chat_record.py` reads and writes it.
CHAT_RECORD = "dgr_chat.json"
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
# The files of a model: downloaded from the hub, and covered by its content hash.
MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "model*.safetensors",
    INDEX,
    *TOKENIZERS,
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "chat_template.jinja",
    CHAT_RECORD,
)
# With trust_remote_code, the repository's code too.
CODE_FILES = ("*.py",)


def check_folder(folder: Path, named: str, *, weights: bool = True) -> None:
    """Checks that a folder holds config, whole safetensors weights and a tokenizer.

    Args:
        folder: the folder.
        named: how the user named it, such as `model.path=out/model`.
        weights: whether weights are needed.

    Raises:
        UserError: something is missing; the message begins with `named` and says what.
    """
    if not folder.is_dir():
        raise UserError(f"{named}: there is no such folder. Name a Hugging Face model folder.")
    config = _read_object(folder / "config.json", named)
    if "model_type" not in config:
        raise UserError(f"{named}: config.json has no model_type. Copy config.json from the model's repository.")
    if weights:
        weight_files(folder, named)
    if not any((folder / name).exists() for name in TOKENIZERS):
        raise UserError(f"{named}: no tokenizer ({', '.join(TOKENIZERS)}). Copy its files from the model's repository.")


def check_unquantised(folder: Path) -> None:
    """Checks that a model's weights are not quantised, so that training can start from them.

    Raises:
        UserError: they are quantised.
    """
    quantised = _read_object(folder / "config.json", str(folder)).get("quantization_config")
    if isinstance(quantised, dict):
        raise UserError(
            f"{folder}: its weights are quantised already ({quantised.get('quant_method', 'unnamed')}), which training cannot "
            "start from. Name the unquantised model with model.path= or model.hub_id=; tuning=qlora quantises it as it loads."
        )


def language(folder: Path) -> str:
    """Returns the language of a model by its config.json; `natural` if that does not state one or does not exist."""
    try:
        return str(json.loads((folder / "config.json").read_text(encoding="utf-8"))[LANGUAGE])
    except (OSError, ValueError, TypeError, KeyError):
        return "natural"


def weight_files(folder: Path, named: str) -> list[Path]:
    """Returns the safetensors files of a model's weights: a single file, or the shards that the index names.

    Raises:
        UserError: there are none, or a shard is missing. Pickled weights (.bin, .pt, .pth) are refused, since loading them can
            run code.
    """
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    if (folder / INDEX).exists():
        weight_map = _read_object(folder / INDEX, named).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise UserError(f"{named}: {INDEX} has no weight_map. Copy it from the model's repository.")
        shards = [folder / name for name in sorted(set(weight_map.values()))]
        missing = [shard.name for shard in shards if not shard.exists()]
        if missing:
            raise UserError(
                f"{named}: {len(missing)} of {len(shards)} shards are missing: {', '.join(missing[:4])}"
                f"{', …' if len(missing) > 4 else ''}. Copy them from the model's repository."
            )
        return shards
    pickles = sorted(file.name for suffix in ("bin", "pt", "pth") for file in folder.glob(f"*.{suffix}"))
    if pickles:
        raise UserError(
            f"{named}: its weights are pickles ({pickles[0]}), which can run code when they are loaded. "
            "Save it again as safetensors: model.save_pretrained(folder)."
        )
    raise UserError(f"{named}: no weights ({WEIGHTS}, or shards with {INDEX}). Copy them from the model's repository.")


def _read_object(path: Path, named: str) -> dict[str, object]:
    if not path.exists():
        raise UserError(
            f"{named}: no {path.name}. A Hugging Face model folder holds config.json, *.safetensors and a tokenizer."
        )
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{named}: {path.name} is not JSON ({error}). Copy it from the model's repository.") from error
    if not isinstance(value, dict):
        raise UserError(f"{named}: {path.name} is not a JSON object. Copy it from the model's repository.")
    return value
