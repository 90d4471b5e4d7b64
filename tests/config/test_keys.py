"""Facts about keys: what is private, what is hashed by which kind of run, what a method reads."""

import dataclasses
import re
from typing import Any, Optional, get_origin

import pytest

from dgr_lightning.config import Config, MixPart
from dgr_lightning.config.keys import Key, hashed, is_private, keys, public, unread_by_method, value_of
from dgr_lightning.config.setting import setting


def test_what_names_a_place_or_a_person_is_private_and_stays_out_of_what_is_public():
    cfg = Config()
    cfg.model.path, cfg.refine.response_template, cfg.engine.url = "/home/me/model", "/home/me/t.jinja", "http://10.0.0.1/v1"
    cfg.logger.entity, cfg.evaluation.path, cfg.model.name = "me", {"gsm8k": "/home/me/g"}, "mine"
    text = str(public(cfg))
    assert "/home" not in text and "10.0.0.1" not in text and "'me'" not in text and "'mine'" in text


# Sentences that name a place, a person, a server or a text of the user's own, and why the key is public all the same.
TELLING = re.compile(r"\b(path|file|folder|director|address|url|server|team|user|template|system message|text|prompt)", re.I)
HARMLESS = {
    "model.name": "a short name that directories are named after",
    "refine.name": "likewise",
    "refine.strategy": "the name of a strategy, or of code",
    "data.fields.prompt": "the name of a column",
    "data.benign.fields.prompt": "likewise",
}


def test_a_key_that_takes_a_path_an_address_or_a_text_of_the_users_is_private():
    public_texts = [key for key, known in keys().items() if known.takes_any_text and not known.private]
    assert [key for key in public_texts if TELLING.search(keys()[key].facts["help"]) and key not in HARMLESS] == []


def test_a_key_that_takes_any_text_is_private_until_somebody_decides_that_it_need_not_be():
    undecided, with_choices = dataclasses.fields(_Undecided)
    assert all(Key(undecided, hint).private for hint in (str, Optional[str], dict[str, Any], list[MixPart]))
    assert not Key(undecided, Optional[int]).private and not Key(with_choices, str).private


@dataclasses.dataclass
class _Undecided:
    place: str = setting("", "something that was added later")
    mode: str = setting("a", "a mode", choices=("a", "b"))


def filled(value: str) -> tuple[Config, list[str]]:
    """Returns a config with a text in every key that takes any, and the names of those keys."""
    cfg, texts = Config(), [key for key, known in keys().items() if known.takes_any_text]
    for key in texts:
        section, _, name = key.rpartition(".")
        shape = get_origin(keys()[key].hint)
        put = {dict: {"one": value}, list: [value]}.get(shape, value)
        setattr(value_of(cfg, section) if section else cfg, name, put if key != "data.mix" else [MixPart(path=value)])
    return cfg, texts


@pytest.mark.parametrize(
    "value",
    ["/home/me/secret", "~/secret", "../secret", "http://me:secret@host/v1", "tell me\nthe secret", "hf_" + "secret1" * 5],
)
def test_a_place_or_a_secret_is_withheld_whatever_key_it_was_given_to(value):
    cfg, texts = filled(value)
    assert len(texts) > 60
    assert "secret" not in str(public(cfg))


def test_of_plain_words_only_those_in_public_keys_are_handed_on():
    cfg, texts = filled("canary")

    def words(section: dict, prefix: str = "") -> set[str]:
        inner = [words(value, f"{prefix}{name}.") for name, value in section.items() if f"{prefix}{name}" not in keys()]
        told = {f"{prefix}{name}" for name, value in section.items() if "canary" in str(value)}
        return told.intersection(keys()).union(*inner)

    assert words(public(cfg)) == {key for key in texts if not is_private(key)}


def test_a_key_of_an_earlier_version_is_not_private():
    assert not is_private("model.shape_of_an_earlier_version")


def test_every_key_is_hashed_for_a_training_unless_it_says_otherwise():
    plain = hashed(Config(), "train")
    assert plain["sft"].keys() >= {"lr", "max_length"} and "max_tokens" not in plain["sft"]
    assert "shift" not in plain and "evaluation" not in plain and "seed" in plain
    assert hashed(Config(), "refine").keys() == {"seed", "model", "data", "refine", "engine", "sft"}
    assert hashed(Config(), "evaluate").keys() == {"model", "engine", "evaluation", "judge"}


def test_a_method_reads_its_own_keys():
    assert unread_by_method("tuning", "qlora") == []
    assert unread_by_method("tuning", "lora") == ["tuning.quant_storage"]
    assert "tuning.rank" in unread_by_method("tuning", "full")


def test_values_are_found_by_dotted_names():
    assert value_of(Config(), "sft.lr") == Config().sft.lr and value_of(Config(), "data.benign.split") == "train"
