"""Models of the hub: it is asked once and quickly, and each is fetched once.

A small server stands in for the hub, and the real libraries talk to it.
"""

from pathlib import Path

import pytest

from tests.helpers.hub import COMMIT, NOBODY


@pytest.mark.slow
def test_a_hub_that_accepts_and_never_answers_is_given_up_in_time(ask):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as mute:
        reachable, noise, _ = ask("hub_reachable()", f"http://127.0.0.1:{mute.getsockname()[1]}")
    assert reachable is False and noise == ""


def test_what_is_no_repository_id_is_refused(ask):
    assert str(ask("cached_model('no such id', None)", NOBODY)[0]).startswith("UserError: model.hub_id=no such id")


def test_a_model_is_fetched_once_without_pickles_and_duplicates(ask, hub):
    fetch = f"fetch_model('owner/model', '{COMMIT}')"
    folder = Path(ask(fetch, hub.url)[0])
    assert {file.name for file in folder.iterdir()} == {"config.json", "model.safetensors", "tokenizer.json"}
    hub.asked.clear()
    assert ask(fetch, hub.url)[0] == ask(fetch, NOBODY)[0] == str(folder)
    assert ask("model_available('owner/model', None)", NOBODY)[0] is False  # the default branch was never looked up
    assert ask(f"model_available('owner/model', '{COMMIT}')", NOBODY)[0] is True
    assert not hub.asked
    (folder / "model.safetensors").unlink()
    assert ask(f"model_available('owner/model', '{COMMIT}')", NOBODY)[0] is False


def test_code_of_a_cached_model_is_asked_for_where_it_is_trusted(ask, hub):
    fetch = f"fetch_model('owner/model', '{COMMIT}', with_code={{}})"
    folder = Path(ask(fetch.format(False), hub.url)[0])
    assert not (folder / "modeling.py").exists()
    assert "not in the local cache" in ask(fetch.format(True), NOBODY)[0]
    assert ask(fetch.format(True), hub.url)[0] == ask(fetch.format(True), NOBODY)[0] == str(folder)
    assert (folder / "modeling.py").exists()


def test_the_default_branch_follows_the_hub_where_it_answers(ask, hub):
    folder = Path(ask("fetch_model('owner/model', None)", hub.url)[0])
    hub.asked.clear()
    assert ask("fetch_model('owner/model', None)", hub.url)[0] == str(folder)
    assert any("revision/main" in path for path in hub.asked)
    assert ask("fetch_model('owner/model', None)", NOBODY)[0] == str(folder)


@pytest.mark.parametrize(
    ("code", "parts"),
    [
        ("fetch_model('owner/none', None)", ("UserError: owner/none: ", "Not Found", "model.path=")),
        (f"fetch_model('owner/model', '{'d' * 40}')", (f"UserError: owner/model@{'d' * 40}: ", "model.path=")),
    ],
)
def test_what_the_hub_does_not_have_is_named(ask, hub, code, parts):
    message = ask(code, hub.url)[0]
    assert isinstance(message, str) and all(part in message for part in parts)
