"""Loads a folder's tokenizer and checks that it encodes as the folder's own tokenizer.json.

`AutoTokenizer` of transformers 5 picks a tokenizer's class by name. For the R1-Distill models, without a config.json beside
them, that is a Llama class that drops white space ("Hello world,\\n2 + 2 = 4" becomes "Helloworld,2+2=4"), silently.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dgr_lightning.errors import UserError, one_line
from dgr_lightning.models.folder import read_object
from dgr_lightning.models.quiet_imports import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# White space, digits, scripts and line breaks, in which a tokenizer of the wrong class differs first.
_TEXTS = (
    "Hello world,\n2 + 2 = 4",
    "  leading, double  and trailing spaces  ",
    "tabs\tand\r\nline\n\n\nbreaks 3.14159 1,000,000",
    "I'm, they'LL; naïve Ünïcödé, Ελληνικά, 你好，世界, नमस्ते, 🦙🙂",
    "\\boxed{\\frac{1}{2}} <think>\n\n</think>\n\nAnswer",
)


def load_tokenizer(folder: Path, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Loads a folder's tokenizer; if it has a tokenizer.json, from that file and never by `AutoTokenizer`.

    Raises:
        UserError: no tokenizer, one that needs untrusted code, or one that disagrees with its tokenizer.json.
    """
    from transformers import PreTrainedTokenizerFast

    file = folder / "tokenizer.json"
    try:
        if file.is_file():
            # It warns of a wrong regular expression for any large vocabulary in a local folder; the check below would find one.
            with quiet_transformers():
                tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
            check_tokenizer(tokenizer, file)
        else:
            from transformers import AutoTokenizer  # imports torch, which takes seconds

            with quiet_transformers():
                tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except UserError:
        raise
    except BaseException as error:
        # Files of wrong types end in errors of any kind, and in Rust in panics, which are no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        advice = "" if trust_remote_code else " If its tokenizer is custom code, model.trust_remote_code=true lets it run."
        why = one_line(f"{type(error).__name__}: {error}", 300)
        raise UserError(
            f"{folder}: no tokenizer that loads ({why}). It needs tokenizer.json, or vocab.json and merges.txt, with "
            f"tokenizer_config.json.{advice}"
        ) from error
    return tokenizer


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, file: Path) -> None:
    """Checks that a loaded tokenizer encodes as the tokenizer.json that it was loaded from.

    Raises:
        UserError: they encode a string differently.
    """
    from tokenizers import Tokenizer

    raw = Tokenizer.from_file(str(file))
    raw.no_truncation()  # the files of embedding models may set both
    raw.no_padding()
    for text in _TEXTS:
        expected, found = raw.encode(text, add_special_tokens=False).ids, tokenizer.encode(text, add_special_tokens=False)
        if found != expected:
            raise UserError(
                f"{file.parent}: the tokenizer loads as {type(tokenizer).__name__} and encodes {text!r} as {found}, its own "
                f"tokenizer.json as {expected}. Put the files of the original model there, unchanged."
            )


def stop_ids(folder: Path) -> list[int]:
    """Returns the end tokens in a folder's generation_config.json, if it has one.

    Raises:
        UserError: it cannot be read, or they are no ids.
    """
    file = folder / "generation_config.json"
    if not file.is_file():
        return []
    stored = read_object(file, str(folder)).get("eos_token_id")
    ids = stored if isinstance(stored, list) else [] if stored is None else [stored]
    if not all(isinstance(id_, int) and not isinstance(id_, bool) and 0 <= id_ < 2**31 for id_ in ids):
        raise UserError(
            f"{folder}: eos_token_id in generation_config.json is {one_line(repr(stored), 60)}; write the id of a token, or a "
            "list of ids."
        )
    return ids
