"""Headers of stores: their content names the folders in caches that exist, so it never changes by accident."""

import pytest

from dgr_lightning.config import EngineConfig, EvaluationConfig, RefineConfig
from dgr_lightning.engines.engine import Sampling
from dgr_lightning.generation.store_headers import sampling_of, sampling_settings, store_header
from dgr_lightning.hashes import file_hash

CHAT = {"chat_style": "think"}
ENGINE = EngineConfig(name="transformers", precision="fp32")


def test_a_header_holds_the_model_the_generation_and_the_engine_in_this_order():
    header = store_header(2, "m", CHAT, ENGINE, task="gsm8k", **sampling_settings(EvaluationConfig(max_new_tokens=9)))
    assert list(header.items()) == [
        ("version", 2),
        ("model", "m"),
        ("chat_style", "think"),
        ("task", "gsm8k"),
        ("temperature", 0.6),
        ("top_p", 0.95),
        ("max_new_tokens", 9),
        ("seed", 0),
        ("max_length", None),
        ("engine", "transformers"),
        ("precision", "fp32"),
    ]


def test_what_came_later_is_in_a_header_only_where_it_is_set():
    assert sampling_settings(EvaluationConfig(top_k=20)) == sampling_settings(EvaluationConfig()) | {"top_k": 20}
    assert sampling_of(RefineConfig(top_k=20, seed=3), (7,)) == Sampling(0.6, 0.95, 8192, 3, (7,), 20)
    penalised = EvaluationConfig(repetition_penalty=1.2, max_new_tokens=9)
    assert sampling_settings(penalised) == sampling_settings(EvaluationConfig(max_new_tokens=9)) | {"repetition_penalty": 1.2}
    assert sampling_of(penalised, (7,)) == Sampling(0.6, 0.95, 9, 0, (7,), 0, 1.2)


@pytest.mark.parametrize("key", ["name", "precision"])
def test_nothing_is_stored_under_auto(key):
    with pytest.raises(AssertionError, match=r"cli/ resolves engine\.name and engine\.precision"):
        store_header(1, "m", CHAT, EngineConfig(**({"name": "transformers", "precision": "fp32"} | {key: "auto"})))


def test_completions_of_an_engine_from_outside_are_stored_by_its_code(tmp_path, monkeypatch):
    (tmp_path / "own_engine.py").write_text("ENGINE = None")
    monkeypatch.syspath_prepend(str(tmp_path))
    header = store_header(1, "m", CHAT, EngineConfig(name="own_engine:ENGINE", precision="fp32"))
    assert header["engine_code"] == file_hash(tmp_path / "own_engine.py")
