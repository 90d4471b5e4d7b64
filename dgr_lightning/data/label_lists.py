"""Lists of labels that come with the package: what each row's own answer does, for sets that do not say it themselves.

A list is a file `label_lists/<set>-<version>.json`: ids and no text, the rule by which it was made, and what reading a
part of it by hand showed. It is never edited: a better judge makes a new version, and every version is part of the data hash.
"""

from __future__ import annotations

import json
from pathlib import Path

from dgr_lightning.errors import UserError

_FOLDER = Path(__file__).parent / "label_lists"


def label_list_file(name: str, key: str = "data.label_list") -> Path:
    """Returns the file of a list; `key` is the config key that names it, for messages.

    Raises:
        UserError: there is no such list.
    """
    names = sorted(file.stem for file in _FOLDER.glob("*.json"))
    if name not in names:
        raise UserError(f"{key}={name}: there is no such list. Write one of {', '.join(names)}, or null.")
    return _FOLDER / f"{name}.json"


def read_labels(name: str) -> dict[str, str]:
    """Returns id of a row → its label.

    Raises:
        UserError: there is no such list.
    """
    ids = json.loads(label_list_file(name).read_text(encoding="utf-8"))["ids"]
    return {id_: label for label, of_label in ids.items() for id_ in of_label}
