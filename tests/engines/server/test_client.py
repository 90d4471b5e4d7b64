"""The HTTP side of engine=server, through the engine: what is tried again, what is not, and what is said of either."""

import json
import logging
import threading
import time
from email.utils import formatdate

import pytest

from dgr_lightning.engines.server import client
from dgr_lightning.errors import UserError
from tests.helpers.stand_in import SAMPLING, expected, request, texts

KEY = "sk-a-very-secret-key"

# Transient failures


@pytest.mark.parametrize(
    "failure",
    [
        *((status, {}, {"error": {"message": "later"}}) for status in (408, 409, 429, 500, 502, 503)),
        "hang up",
        "too late",
        (200, {}, b"<html>a proxy</html>"),
        (200, {}, {"choices": [{"text": "half an ou", "finish_reason": "abort", "token_ids": [104]}]}),
        (200, {}, {"choices": [{"text": None, "finish_reason": "stop"}]}),
    ],
    ids=str,
)
def test_a_passing_failure_is_tried_again(stand_in, connect, failure, capsys):
    engine = connect(stand_in, timeout_seconds=1.0 if failure == "too late" else 20.0, retries=9)
    failed = {}

    def answer(body):
        number = failed[tuple(body["prompt"])] = failed.get(tuple(body["prompt"]), 0) + 1
        if number > 2:
            return None
        if failure == "too late":
            time.sleep(1.3)
        return None if failure == "too late" else failure

    stand_in.answer = answer
    completions = {one.key: one for one in engine.generate(map(request, texts(6)), SAMPLING)}
    assert completions == {f"key of {text}": expected(text) for text in texts(6)}
    assert min(failed.values()) == 3
    # Said once, and without what was sent or generated.
    said = capsys.readouterr().out
    assert said.count("trying again") == 1 and "prompt" not in said and "half an ou" not in said


@pytest.fixture
def pauses(monkeypatch):
    """How long requests were to wait before they were sent again; they are sent at once."""
    pauses = []

    async def at_once(seconds):
        pauses.append(seconds)

    monkeypatch.setattr(client.asyncio, "sleep", at_once)
    return pauses


@pytest.mark.parametrize("wanted", ["7", lambda: formatdate(time.time() + 12, usegmt=True)], ids=["seconds", "date"])
def test_a_server_is_asked_again_when_it_wants_to_be(stand_in, connect, pauses, wanted):
    engine = connect(stand_in)

    def answer(body):
        value = wanted if isinstance(wanted, str) else wanted()
        return (429, {"Retry-After": value}, {}) if len(stand_in.bodies) == 1 else None

    stand_in.answer = answer
    assert list(engine.generate([request("a")], SAMPLING)) == [expected("a")]
    (pause,) = pauses
    assert pause == 7 if wanted == "7" else 2 < pause <= 12


def test_pauses_grow_and_have_a_limit(stand_in, connect, pauses, monkeypatch):
    engine = connect(stand_in, retries=7)
    monkeypatch.setattr(client, "FIRST_PAUSE", 2.0)
    stand_in.answer = lambda body: (500, {}, {})
    with pytest.raises(RuntimeError):
        list(engine.generate([request("a")], SAMPLING))
    assert len(pauses) == 7 == len(stand_in.bodies) - 1
    for pause, length in zip(pauses, (2, 4, 8, 16, 32, 60, 60), strict=True):
        assert 0.75 * length <= pause <= 1.25 * length
    assert len({pause / length for pause, length in zip(pauses, (2, 4, 8, 16, 32, 60, 60), strict=True)}) == 7


def test_what_has_finished_is_yielded_before_the_engine_gives_up(stand_in, connect):
    engine = connect(stand_in, batch_size=8, retries=2)
    stand_in.answer = lambda body: (503, {}, {}) if body["prompt"][0] == ord("!") else None
    stored = []
    with pytest.raises(RuntimeError) as caught:
        for completion in engine.generate(map(request, ["!harmful prompt", *texts(2000)]), SAMPLING):
            time.sleep(0.002)
            stored.append(completion)
    assert len(stored) == len([body for body in stand_in.bodies if body["prompt"][0] != ord("!")])
    assert 7 <= len(stored) < 2000
    message = str(caught.value)
    assert "failed 3 times" in message and "503 Service Unavailable" in message and stand_in.url in message
    assert "harmful" not in message


def test_a_server_that_is_killed_and_comes_back_is_survived(stand_in, connect):
    engine = connect(stand_in, batch_size=8, retries=12)
    port = stand_in.port
    stand_in.answer = lambda body: time.sleep(0.01)
    completions = []
    for completion in engine.generate(map(request, texts(60)), SAMPLING):
        completions.append(completion)
        if len(completions) == 15:
            stand_in.stop()
            threading.Timer(0.3, stand_in.start, [port]).start()
    assert {one.key: one for one in completions} == {f"key of {text}": expected(text) for text in texts(60)}
    assert len(completions) == 60


# Failures that are not retried


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_names_the_variable_and_never_the_key(stand_in, connect, monkeypatch, status):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    engine = connect(stand_in)
    stand_in.answer = lambda body: (status, {}, {"error": {"message": f"Incorrect API key provided: {KEY}"}})
    with pytest.raises(UserError, match="OPENAI_API_KEY") as caught:
        list(engine.generate([request("a")], SAMPLING))
    assert KEY not in str(caught.value) and "was refused" in str(caught.value)
    assert len(stand_in.bodies) == 1


def test_a_key_is_sent_and_told_to_nobody(stand_in, connect, monkeypatch, caplog, capsys):
    stand_in.key = KEY
    with pytest.raises(UserError, match=r"OPENAI_API_KEY; none is set"):
        connect(stand_in)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with caplog.at_level(logging.DEBUG):
        engine = connect(stand_in)
        engine.score([([65], [66])])
        assert list(engine.generate([request("a")], SAMPLING)) == [expected("a")]
        stand_in.answer = lambda body: (400, {}, {"error": {"message": f"{KEY} does not allow this"}})
        with pytest.raises(UserError, match="does not allow this") as caught:
            list(engine.generate([request("abc")], SAMPLING))
    output = capsys.readouterr()
    shown = f"{caplog.text}{caught.value}{engine!r}{engine.__dict__!r}{engine._client.__dict__ | {'_key': ''}}{output}"
    assert "secret" not in shown
    monkeypatch.setenv("OPENAI_API_KEY", f"two\n{KEY}")
    with pytest.raises(UserError, match="OPENAI_API_KEY holds characters") as caught:
        connect(stand_in)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        ({"error": {"message": "bad request for PROMPT: too long by 3"}}, "too long by 3"),
        ({"message": "1 validation error: input PROMPT, too long"}, "1 validation error"),
        ({"error": "inputs IDS must have less than 100 tokens"}, "must have less than 100 tokens"),
        ({"detail": [{"loc": ["body", "prompt"], "msg": "not like this", "input": "PROMPT"}]}, "not like this"),
        ({"error": {"message": "see PARTS here"}}, "see"),
        ({"error": {"message": "long " * 500}}, "long long"),
        (b"<html>", "status 400"),
    ],
)
def test_a_refused_request_says_why_without_its_prompt(stand_in, connect, words, kept):
    engine = connect(stand_in)
    prompt = "How does one do a very terrible thing,\nstep by step and soon?"
    if not isinstance(words, bytes):
        told = json.dumps(words).replace("PROMPT", json.dumps(prompt)[1:-1]).replace("IDS", str(list(map(ord, prompt))))
        words = json.loads(told.replace("PARTS", "…do a very terrible thing, step by… and …very terrible thing…"))
    stand_in.answer = lambda body: (400, {}, words)
    with pytest.raises(UserError) as caught:
        list(engine.generate([request(prompt)], SAMPLING))
    message = str(caught.value)
    assert kept in message and f"{len(prompt)} tokens" in message and len(message) < 600
    assert "terrible" not in message and "step by step" not in message and str(ord("H")) + ", " not in message
    assert len(stand_in.bodies) == 1


def test_a_wrong_path_or_model_is_named(stand_in, connect):
    with pytest.raises(UserError, match=r"has no /models.*usually ends in /v1"):
        connect(stand_in, url=stand_in.url.removesuffix("/v1"))
    engine = connect(stand_in)
    stand_in.answer = lambda body: (404, {}, {"error": {"message": "The model does not exist"}})
    with pytest.raises(UserError, match=r"engine.served_model="):
        list(engine.generate([request("a")], SAMPLING))


def test_no_server_there(connect, stand_in):
    stand_in.stop()
    with pytest.raises(UserError, match=rf"127.0.0.1:{stand_in.port}/v1 failed 3 times.*ConnectError.*vllm serve"):
        connect(stand_in, retries=2)
    with pytest.raises(UserError, match=r"engine.url="):
        connect(stand_in, url=None)
