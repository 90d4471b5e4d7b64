"""Data sets of the hub: prepared once, then read from the cache at their commit.

A small server stands in for the hub, and the real libraries talk to it.
"""

import pytest

from tests.helpers.hub import COMMIT, NOBODY, ROWS


def test_a_dataset_is_prepared_once_and_read_from_the_cache_at_its_commit(ask, hub):
    rows = f"dataset_rows('owner/MySet', '{COMMIT}', 'train')"
    assert ask(rows, hub.url)[0] == ROWS
    hub.asked.clear()
    result, noise, slept = ask(rows, NOBODY)
    assert result == ROWS and noise == "" and slept == 0 and not hub.asked
    other = ask(f"dataset_rows('owner/MySet', '{'d' * 40}', 'train')", NOBODY)[0]
    assert other.startswith("UserError: ") and "data owner/MySet is not in the local cache. Set data.path=" in other
    assert "no split 'test'" in ask(f"dataset_rows('owner/MySet', '{COMMIT}', 'test')", NOBODY)[0]


@pytest.mark.parametrize(
    ("code", "parts"),
    [
        (
            "dataset_rows('owner/None', None, 'train', path_key='evaluation.path.x')",
            ("UserError: owner/None, split train: ", "doesn't exist on the Hub", "evaluation.path.x="),
        ),
        (f"dataset_rows('owner/MySet', '{COMMIT}', 'nosuch')", ("UserError: owner/MySet@", "split nosuch: ", "data.path=")),
    ],
)
def test_what_the_hub_does_not_have_is_named(ask, hub, code, parts):
    message = ask(code, hub.url)[0]
    assert isinstance(message, str) and all(part in message for part in parts)
