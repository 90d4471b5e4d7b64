"""The files of a Hugging Face model folder, and checks that a folder is a complete model.

Only names and small JSON files are read, because the command line checks them before anything heavy is imported. They come from
somebody else: here is the one place that says which weights a folder has, and that each of its JSON files holds an object.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dgr_lightning.errors import UserError, one_line
from dgr_lightning.files import check_plain, exists, local_path
from dgr_lightning.installation import script_name
from dgr_lightning.json_text import BadJson, parse_json

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
# Those of them, besides config.json and the index of the weights, that transformers takes for small objects; tokenizer.json and
# vocab.json are large, and whatever is wrong with them is found when they are loaded.
_OBJECTS = (
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
)
ADAPTER_CONFIG = "adapter_config.json"
# File of a folder into which an adapter was merged here: the content of both, by which runs identify it.
MERGED = "dgr_merged.json"
# With trust_remote_code, the repository's code too.
CODE_FILES = ("*.py",)


def check_folder(folder: Path, named: str, *, weights: bool = True) -> None:
    """Checks that a folder holds config, whole safetensors weights and a tokenizer, and that its JSON can be read.

    Args:
        folder: the folder.
        named: how the user named it, such as `model.path=out/model`.
        weights: whether weights are needed.

    Raises:
        UserError: something is missing or cannot be read; the message begins with `named` and says what.
    """
    if not (exists(folder) and folder.is_dir()):
        raise UserError(f"{named}: there is no such folder. Name a Hugging Face model folder.")
    for file in sorted(folder.iterdir()):
        if file.exists():
            check_plain(file, f"{named}: {file.name}")  # before a pipe is waited for
    if (folder / ADAPTER_CONFIG).exists() and not (folder / "config.json").exists():
        raise UserError(
            f"{named}: an adapter without its base. {script_name('evaluate')} measures it on its base with model.path=; "
            "elsewhere merge it first: model.merge_and_unload(), then model.save_pretrained(folder)."
        )
    config = read_object(folder / "config.json", named)
    if not isinstance(config.get("model_type"), str):
        raise UserError(f"{named}: config.json has no model_type. Copy config.json from the model's repository.")
    for name in _OBJECTS:
        if (folder / name).exists():
            read_object(folder / name, named)
    _check_no_other_weights(folder, config, named)
    if weights:
        weight_files(folder, named)
    if not any((folder / name).exists() for name in TOKENIZERS):
        raise UserError(f"{named}: no tokenizer ({', '.join(TOKENIZERS)}). Copy its files from the model's repository.")


def has_weights(folder: Path) -> bool:
    """Whether a folder holds weights, or an index of them; False for one with config and tokenizer alone."""
    return any(exists(folder / name) for name in (WEIGHTS, INDEX)) or any(folder.glob("*.bin"))


def check_unquantised(folder: Path) -> None:
    """Checks that a model's weights are not quantised, so that training can start from them.

    Raises:
        UserError: they are quantised.
    """
    quantised = read_object(folder / "config.json", str(folder)).get("quantization_config")
    if isinstance(quantised, dict):
        raise UserError(
            f"{folder}: its weights are quantised already ({quantised.get('quant_method', 'unnamed')}), which training cannot "
            "start from. Name the unquantised model with model.path= or model.hub_id=; tuning=qlora quantises it as it loads."
        )


def language(folder: Path) -> str:
    """Returns the language of a model by its config.json; `natural` if that does not state one or does not exist.

    That of an adapter is its base's, where it names a local folder.
    """
    file = folder / "config.json"
    try:
        if not file.is_file() and (folder / ADAPTER_CONFIG).is_file():
            base = parse_json((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"]
            file = local_path(str(base)) / "config.json"
        return str(parse_json(file.read_text(encoding="utf-8"))[LANGUAGE]) if file.is_file() else "natural"
    except (OSError, ValueError, TypeError, KeyError):
        return "natural"


def weight_files(folder: Path, named: str) -> list[Path]:
    """Returns the safetensors files of a model's weights: a single file, or the shards that the index names.

    These, and no others, are loaded, hashed and sharded; transformers takes the same ones in the same order of preference. An
    index names files beside it: no other folder, no other kind of file. Such a file may be a link, as all are in the hub's
    cache: whoever can put links into a folder needs no index to lead elsewhere, and a safetensors file is never unpickled.

    Raises:
        UserError: there are none, a shard is missing, or the index names what it must not. Pickled weights (.bin, .pt, .pth)
            are refused, since loading them can run code.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        index = read_object(folder / INDEX, named)
        shards = [folder / name for name in _shard_names(index, named)]
        missing = [shard.name for shard in shards if not shard.is_file()]
        if missing:
            raise UserError(
                f"{named}: {len(missing)} of {len(shards)} shards are missing: {', '.join(missing[:4])}"
                f"{', …' if len(missing) > 4 else ''}. Copy them from the model's repository."
            )
        if not isinstance(index.get("metadata"), dict):  # transformers takes it for granted
            raise UserError(f"{named}: {INDEX} has no metadata. Copy it from the model's repository.")
        return shards
    pickles = sorted(file.name for suffix in ("bin", "pt", "pth") for file in folder.glob(f"*.{suffix}"))
    if pickles:
        raise UserError(
            f"{named}: its weights are pickles ({pickles[0]}), which can run code when they are loaded. "
            "Save it again as safetensors: model.save_pretrained(folder)."
        )
    raise UserError(f"{named}: no weights ({WEIGHTS}, or shards with {INDEX}). Copy them from the model's repository.")


def _shard_names(index: Mapping[str, Any], named: str) -> list[str]:
    """Returns the names of the files that an index names, in order."""
    weight_map = index.get("weight_map")
    remedy = "Copy it from the model's repository."
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{named}: {INDEX} has no weight_map. {remedy}")
    names: set[str] = set()
    for weight, name in weight_map.items():
        if not isinstance(name, str):
            raise UserError(
                f"{named}: the weight_map of {INDEX} has no file name for {one_line(repr(weight), 60)}, but "
                f"{type(name).__name__}. {remedy}"
            )
        names.add(name)
    for name in sorted(names):
        plain = name.isprintable() and not set(name) & set("/\\:") and len(name.encode()) < 256
        if not plain or not name.endswith(".safetensors"):
            raise UserError(
                f"{named}: {INDEX} names {one_line(repr(name), 80)}. Weights are *.safetensors files in the folder itself: "
                "others could run code when they are loaded, or lie anywhere. Save it again: model.save_pretrained(folder)."
            )
    return sorted(names)


def _check_no_other_weights(folder: Path, config: dict[str, Any], named: str) -> None:
    """Checks that a folder does not make transformers load other weights than `weight_files`."""
    if "transformers_weights" in config:
        raise UserError(
            f"{named}: config.json has transformers_weights, which names a file of weights. Name the file {WEIGHTS} and take "
            "that entry out."
        )
    if (folder / ADAPTER_CONFIG).exists():
        raise UserError(
            f"{named}: it holds an adapter ({ADAPTER_CONFIG}), which would be loaded over its weights. If it is merged into "
            f"them, delete {ADAPTER_CONFIG}; if not, merge it and save the model: model.merge_and_unload()."
        )


def read_object(path: Path, named: str) -> dict[str, Any]:
    """Returns the object in a JSON file of a model's folder.

    Args:
        path: of the file.
        named: how the user named the folder, with which every message begins.

    Raises:
        UserError: there is no such file, it cannot be read, or it is not a JSON object.
    """
    if not path.exists():
        raise UserError(
            f"{named}: no {path.name}. A Hugging Face model folder holds config.json, *.safetensors and a tokenizer."
        )
    try:
        value = parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{named}: {path.name} cannot be read ({error.strerror}).") from error
    except (BadJson, UnicodeDecodeError) as error:
        why = error if isinstance(error, BadJson) else f"not UTF-8 text (byte {error.start})"
        raise UserError(f"{named}: {path.name} is not JSON ({why}). Copy it from the model's repository.") from error
    if not isinstance(value, dict):
        raise UserError(f"{named}: {path.name} is not a JSON object. Copy it from the model's repository.")
    return value
