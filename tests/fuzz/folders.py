"""The small JSON files of a model's folder: whatever is in one, the folder is accepted or refused with one message."""

from __future__ import annotations

import json
import shutil

from dgr_lightning.errors import UserError
from dgr_lightning.models.chat_record import read_record
from dgr_lightning.models.folder import INDEX, check_folder, check_unquantised, language, weight_files
from dgr_lightning.models.tokenizer import stop_ids
from tests.fuzz.scratch import entries, scratch_folder

_FOLDER = scratch_folder() / "model"
FILES = ("config.json", INDEX, "dgr_chat.json", "generation_config.json")
CONFIG = {"model_type": "qwen3", "dgr_language": "natural", "quantization_config": {"quant_method": "awq"}}
_INDEX = {"metadata": {"total_size": 8}, "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
_RECORD = {"chat_style": "marks", "think_marks": ["<a>", "</a>"], "system_prompt": "s", "template_args": {"a": 1}}

SEEDS = [
    b"\0" + json.dumps(CONFIG).encode(),
    b"\1" + json.dumps(_INDEX).encode(),
    b'\1{"metadata": {}, "weight_map": {"a": "../model-1.safetensors", "b": 1, "c": ["w.bin"]}}',
    b"\2" + json.dumps(_RECORD).encode(),
    b'\2{"chat_style": "think", "think_marks": null, "system_prompt": null, "template_args": {}}',
    b'\3{"eos_token_id": [1, 2]}',
    b'\3{"eos_token_id": 1.5}',
]


def check(data: bytes) -> None:
    """Puts bytes into one of the files, by the first of them, and looks at the folder in every way that loads nothing."""
    if not data:
        return
    make()
    (_FOLDER / FILES[data[0] % len(FILES)]).write_bytes(data[1:])
    look()


def make() -> None:
    """Makes a folder that is accepted."""
    shutil.rmtree(_FOLDER, ignore_errors=True)
    _FOLDER.mkdir()
    (_FOLDER / "config.json").write_text(json.dumps(CONFIG))
    (_FOLDER / INDEX).write_text(json.dumps(_INDEX))
    for name in ("model-1.safetensors", "model-2.safetensors", "tokenizer.json"):
        (_FOLDER / name).write_text("{}")


def look() -> None:
    """Looks at the folder."""
    before = entries(_FOLDER.parent)
    assert isinstance(language(_FOLDER), str)
    for looks in (_whole, check_unquantised, read_record, stop_ids):
        try:
            found = looks(_FOLDER)  # type: ignore[operator]
        except UserError as error:
            assert str(_FOLDER) in str(error), f"does not name the folder: {error}"
        else:
            assert looks is not stop_ids or all(isinstance(id_, int) for id_ in found), found
    assert entries(_FOLDER.parent) == before


def _whole(folder) -> None:  # type: ignore[no-untyped-def]
    check_folder(folder, str(folder))
    for file in weight_files(folder, str(folder)):
        assert file.parent == folder and file.suffix == ".safetensors", f"{file} is no file of the folder's weights"
