"""The key-value cache: it grows with the rows, and rows that memory has no room for come back later."""

from dataclasses import replace

from dgr_lightning.engines.transformers.kv_cache import KeyValueCache
from tests.helpers.decoding import SAMPLED, generate


def test_generation_longer_than_the_cache_first_made(model, requests):
    sampling = replace(SAMPLED, max_new_tokens=190, stop_ids=(3,))
    few = [request for request in requests if len(request.prompt_ids) < 40][:12]
    completions = generate(model, few, sampling, 4)
    assert completions == generate(model, few, sampling, 128)
    assert max(len(completion.token_ids) for completion in completions.values()) == 190


def test_rows_that_memory_has_no_room_for_come_back_and_end_the_same(model, requests, monkeypatch):
    sampling = replace(SAMPLED, max_new_tokens=150, stop_ids=(3,))
    expected = generate(model, requests[:30], sampling)
    room = iter([11, 9, 6, 3, 14, 2, 1] * 100)
    monkeypatch.setattr(KeyValueCache, "_num_fitting", lambda self, shapes: next(room))
    assert generate(model, requests[:30], sampling) == expected
    assert next(room) is not None
