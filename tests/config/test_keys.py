"""Facts about keys: what is private, what is hashed by which kind of run, what a method reads."""

from dgr_lightning.config import Config
from dgr_lightning.config.keys import hashed, is_private, keys, public, unread_by_method, value_of


def test_what_names_a_place_or_a_person_is_private_and_stays_out_of_what_is_public():
    cfg = Config()
    cfg.model.path, cfg.refine.response_template, cfg.engine.url = "/home/me/model", "/home/me/t.jinja", "http://10.0.0.1/v1"
    cfg.logger.entity, cfg.evaluation.path, cfg.model.name = "me", {"gsm8k": "/home/me/g"}, "mine"
    text = str(public(cfg))
    assert "/home" not in text and "10.0.0.1" not in text and "'me'" not in text and "'mine'" in text
    named = ("path", "template", "phrases", "url", "address", "entity", "tuned", "embedding", "meta_thinking")
    assert [key for key in keys() if key.rpartition(".")[2].endswith(named) and not is_private(key)] == []


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
