"""Strategies: which there are, what each reads of the config, what it refuses, and options of a strategy's own."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest

from dgr_lightning.config import Config, RefineConfig
from dgr_lightning.config.setting import setting
from dgr_lightning.errors import UserError
from dgr_lightning.hashes import file_hash
from dgr_lightning.pipeline.identity import identify
from dgr_lightning.refinement.quality import CHECKS
from dgr_lightning.refinement.strategy import FALLBACK, QUALITY, SAMPLING, STRATEGIES, Strategy, read_by_strategy, strategy_of
from tests.helpers.scripted import ScriptedEngine, good, refined

MINE = f"{__name__}:Mine"


class Mine(Strategy):
    """A strategy from outside."""

    keys = (*SAMPLING, *QUALITY, *FALLBACK)

    @dataclass
    class Options:
        sentences: int = setting(3, "how long a trace may become", low=1)
        loud: bool = False
        weight: float = 0.5
        voice: str = setting("plain", "how it sounds", choices=("plain", "grand"))


class Demanding(Strategy):
    """A strategy with an option that has no default."""

    @dataclass
    class Options:
        sentences: int


def mine(**options) -> Strategy:
    return strategy_of(RefineConfig(strategy=MINE, options=options))


# The registry


def test_the_strategies_are_the_files_of_their_folder():
    assert STRATEGIES.names() == ("dgr", "filters-only", "length-matched", "sdft", "thinksafe", "vanilla")
    for name in STRATEGIES.names():
        assert issubclass(STRATEGIES.get(name), Strategy)


@pytest.mark.parametrize("name", STRATEGIES.names())
def test_a_strategy_reads_keys_that_exist_and_texts_that_are_shipped(name):
    strategy = strategy_of(RefineConfig(strategy=name, on_failure="drop"))
    known = {field.name for field in fields(RefineConfig)} - {"name", "strategy", "options"}
    assert set(strategy.keys) <= known and len(set(strategy.keys)) == len(strategy.keys)
    assert set(strategy.shipped_texts) <= set(strategy.keys)
    assert all(path.is_file() for path in strategy.shipped_texts.values())
    assert strategy.generates == bool(strategy.steps()) == ("temperature" in strategy.keys)
    assert strategy.identity == {}, "a key that is new to every hash"


def test_a_name_that_no_strategy_has_is_refused():
    with pytest.raises(
        UserError, match=r"refine\.strategy=sdfd: expected one of dgr, .*sdft.* or your own package\.module:Name"
    ):
        strategy_of(RefineConfig(strategy="sdfd"))


@pytest.mark.parametrize("name", [f"{__name__}:mine", "dataclasses:dataclass"])
def test_a_name_from_outside_that_is_no_strategy_is_refused(name):
    with pytest.raises(UserError, match=f"refine.strategy={name}: not a subclass"):
        strategy_of(RefineConfig(strategy=name))


# What it reads


def test_keys_that_are_not_read_have_their_default():
    changed = RefineConfig(name="n", strategy="filters-only", on_failure="drop", temperature=0.1, fraction=0.5)
    assert read_by_strategy(changed) == RefineConfig(name="n", strategy="filters-only", on_failure="drop")


def test_keys_that_a_strategy_does_not_read_change_nothing(tmp_path):
    refined(tmp_path, ScriptedEngine(lambda key, prompt: "my thought </think> I cannot, as I say"), strategy="sdft")
    engine = ScriptedEngine(good)
    changed = refined(tmp_path, engine, strategy="sdft", view="part", fallback_unit="part", parts=["trace"], arm="originals")
    assert engine.built == 0 and changed.stats.refined == 4


# What it refuses


def test_the_shipped_config_passes_the_checks():
    strategy_of(RefineConfig()).check()
    strategy_of(RefineConfig(checks=[])).check()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"checks": ["empty", "overthinkin"]}, ["refine.checks", "overthinkin", *CHECKS]),
        ({"checks": ["empty", "unfinished", "empty"]}, ["refine.checks", "empty", "more than once"]),
        ({"fallback_unit": "part", "on_failure": "drop"}, ["refine.fallback_unit=part", "refine.on_failure=drop"]),
        ({"parts": ["trace", "prompt"]}, ["refine.parts=[trace,prompt]", "[answer]"]),
        ({"parts": []}, ["refine.parts=[]"]),
        ({"parts": ["trace", "trace"]}, ["refine.parts", "more than once"]),
        ({"strategy": "thinksafe"}, ["refine.on_failure=keep", "no source trace", "refine.on_failure=drop"]),
        ({"strategy": "filters-only"}, ["refine.on_failure=keep", "refine.on_failure=drop"]),
        ({"strategy": "sdft", "thinking": False}, ["refine.thinking=false", "refine.thinking=true"]),
        ({"select": "nll"}, ["refine.select=nll", "refine.tries"]),
        ({"strategy": "sdft", "response_template": "/not/there.jinja"}, ["refine.response_template=/not/there.jinja"]),
        ({"meta_thinking": "/not/there.txt"}, ["refine.meta_thinking=/not/there.txt", "null"]),
        ({"trace_template": "/not/there.jinja"}, ["refine.trace_template=/not/there.jinja", "null"]),
        ({"answer_template": "/"}, ["refine.answer_template=/", "cannot read"]),
    ],
)
def test_the_checks_refuse_and_name_the_override(changes, words):
    with pytest.raises(UserError) as caught:
        strategy_of(RefineConfig(**changes)).check()
    assert all(word in str(caught.value) for word in words)


# Options of its own


def test_options_are_parsed_into_the_strategys_dataclass():
    assert mine().options == Mine.Options(3, False, 0.5, "plain")
    assert mine(sentences="4", loud="true", weight=1, voice="grand").options == Mine.Options(4, True, 1.0, "grand")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sentence": 3}, ["refine.options.sentence:", "no such option", "Did you mean sentences?", "sentences, loud, weight"]),
        ({"sentences": "few"}, ["refine.options.sentences=few", "a whole number at least 1", "how long a trace may become"]),
        ({"sentences": 0}, ["refine.options.sentences=0", "at least 1"]),
        ({"loud": 3}, ["refine.options.loud=3", "true or false"]),
        ({"weight": "heavy"}, ["refine.options.weight=heavy: expected a number."]),
        ({"weight": None}, ["refine.options.weight=null"]),
        ({"voice": "grant"}, ["refine.options.voice=grant", "plain, grand", "Did you mean grand?"]),
    ],
)
def test_options_that_it_does_not_have_or_of_another_type_are_refused(options, words):
    with pytest.raises(UserError) as caught:
        mine(**options)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_options_of_a_strategy_that_has_none_are_refused():
    with pytest.raises(UserError, match=r"refine\.options\.depth: refine\.strategy=dgr has no options"):
        strategy_of(RefineConfig(options={"depth": 1}))


def test_an_option_without_a_default_has_to_be_given():
    with pytest.raises(UserError, match=r"refine\.options\.sentences: .*needs it; write refine\.options\.sentences="):
        strategy_of(RefineConfig(strategy=f"{__name__}:Demanding"))


def test_options_and_code_of_a_strategy_from_outside_are_in_the_run_hash():
    assert mine(sentences="4").identity == {
        "options": {"sentences": 4, "loud": False, "weight": 0.5, "voice": "plain"},
        "code": file_hash(Path(__file__)),
    }
    cfg = Config()
    hashes = [
        identify(replace(cfg, refine=RefineConfig(strategy=MINE, options=options)), {"model": "m", "data": "d"}).hash
        for options in ({}, {"sentences": 3}, {"sentences": "3"}, {"sentences": 4})
    ]
    assert hashes[0] == hashes[1] == hashes[2] != hashes[3], "the hash is over values, not over how they were written"
