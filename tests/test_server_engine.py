"""Any OpenAI-compatible server as an engine: against a stand-in with every bad habit, and against a real vLLM."""

import json
import logging
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import pytest

from dgr_lightning.chat import FORMATS
from dgr_lightning.config import EngineConfig
from dgr_lightning.engines import LENGTH, STOP, Completion, Request, Sampling, endpoint
from dgr_lightning.engines.address import check_address
from dgr_lightning.engines.server import ServerEngine
from dgr_lightning.errors import UserError

KEY = "sk-a-very-secret-key"
STOP_ID, OTHER_STOP_ID = 2, 3
MARKS = [mark for format_ in FORMATS.values() for mark in (format_.open_mark, format_.close_mark)]
# A letter is its code point; control tokens have ids beyond.
CONTROLS = {"<end>": STOP_ID, "<over>": OTHER_STOP_ID} | {mark: 200_000 + i for i, mark in enumerate(MARKS)}
NAMES = {id_: name for name, id_ in CONTROLS.items()}
SAMPLING = Sampling(temperature=0.6, top_p=0.95, max_new_tokens=50, seed=3, stop_ids=(STOP_ID, OTHER_STOP_ID))


def encode(text):
    return [CONTROLS.get(piece) or ord(piece) for piece in re.findall("|".join(map(re.escape, CONTROLS)) + "|.", text, re.S)]


class Letters:
    """Decodes to text, end tokens behind it cut."""

    pad_id = STOP_ID

    def decode(self, ids):
        return re.sub("(<end>|<over>)+$", "", "".join(NAMES.get(id_) or chr(id_) for id_ in ids))


class StandIn:
    """A server with OpenAI's completions interface that answers `text` with `TEXT</think>text`.

    Attributes:
        bodies: of all completion requests, those of the engine's start excluded once `forget` was called.
        answer: called with each body before it is answered; may wait, or return (status, headers, body) to send instead.
    """

    def __init__(self):
        self.models = [{"id": "model-a", "max_model_len": 400}]
        self.token_ids = self.keeps_controls = self.takes_extras = self.takes_ids = self.knows_bias = True
        self.logprobs = ("prompt_logprobs", "echo")
        self.shift = self.extra_prompt_tokens = 0
        self.key = None
        self.answer = lambda body: None
        self.bodies, self.under_way, self.most_under_way, self.hung_up = [], 0, 0, 0
        self.lock = threading.Lock()
        self.http = None

    def start(self, port=0):
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize, disable_nagle_algorithm = -1, True

            def setup(self):
                super().setup()
                stand_in.connections.add(self.connection)

            def log_message(self, *_):
                pass

            def do_GET(self):
                if not self.refused():
                    self.send(200, {}, {"data": stand_in.models})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.refused():
                    return
                with stand_in.lock:
                    stand_in.bodies.append(body)
                    stand_in.under_way += 1
                    stand_in.most_under_way = max(stand_in.most_under_way, stand_in.under_way)
                try:
                    instead = stand_in.answer(body) or stand_in.complete(body)
                finally:
                    with stand_in.lock:
                        stand_in.under_way -= 1
                if instead == "hang up":
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True
                elif not stand_in.stopped:
                    self.send(*instead)

            def refused(self):
                if stand_in.key and self.headers.get("Authorization") != f"Bearer {stand_in.key}":
                    given = self.headers.get("Authorization", "nothing")
                    self.send(401, {}, {"error": {"message": f"Incorrect API key provided: {given}"}})
                    return True
                if not self.path.startswith("/v1/"):
                    self.send(404, {}, {"detail": "Not Found"})
                    return True
                return False

            def send(self, status, headers, body):
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                try:
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                    self.wfile.flush()
                except (BrokenPipeError, ConnectionResetError):
                    stand_in.hung_up += 1

        class Http(ThreadingHTTPServer):
            daemon_threads, allow_reuse_address, request_queue_size = True, True, 256

            def handle_error(self, *_):
                pass

        self.stopped, self.connections = False, set()
        self.http = Http(("127.0.0.1", port), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def stop(self):
        """Dies: what is under way is never answered."""
        self.stopped = True
        self.http.shutdown()
        self.http.server_close()
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @property
    def port(self):
        return self.http.server_address[1]

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/v1"

    def forget(self):
        with self.lock:
            self.bodies, self.most_under_way = [], 0

    def complete(self, body):
        known = {"model", "prompt", "max_tokens", "temperature", "top_p", "seed", "logit_bias", "echo", "logprobs"}
        known |= {"presence_penalty", "frequency_penalty"}
        if not self.takes_extras and body.keys() - known:
            return 400, {}, {"error": {"message": f"Unrecognized request argument: {min(body.keys() - known)}"}}
        if not self.takes_ids:
            return 422, {}, {"error": "Input validation error: `prompt` must be a string", "error_type": "validation"}
        prompt = body["prompt"]
        text = "".join(map(chr, prompt)) if max(prompt) < 200_000 else ""
        ids = [*encode(text.upper() + "</think>" + text), STOP_ID]
        if self.knows_bias and "logit_bias" in body:
            ids = [int(next(iter(body["logit_bias"]))) + self.shift]
        reason = "stop" if len(ids) <= body["max_tokens"] else "length"
        ids = ids[: body["max_tokens"]]
        shown = [id_ for id_ in ids if id_ < 200_000 or (self.keeps_controls and body.get("skip_special_tokens") is not True)]
        choice = {"text": Letters().decode(shown), "finish_reason": reason}
        if self.token_ids and body.get("return_token_ids"):
            choice["token_ids"] = ids
        logprobs = [None, *(-id_ / 1000 for id_ in prompt[1:])]
        if "prompt_logprobs" in self.logprobs and "prompt_logprobs" in body:
            choice["prompt_logprobs"] = [
                logprob and {"7777": {"logprob": -99.0, "rank": 1}, str(id_): {"logprob": logprob, "rank": 3}}
                for id_, logprob in zip(prompt, logprobs, strict=True)
            ]
        if body.get("echo") and body.get("logprobs"):
            choice["logprobs"] = {"token_logprobs": [*(logprobs if "echo" in self.logprobs else []), -0.5]}
        return 200, {}, {"choices": [choice], "usage": {"prompt_tokens": len(prompt) + self.extra_prompt_tokens}}


@pytest.fixture
def stand_in():
    stand_in = StandIn().start()
    yield stand_in
    if not stand_in.stopped:
        stand_in.stop()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(endpoint, "FIRST_PAUSE", 0.01)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def connect():
    """Returns a function that connects to a stand-in; what it made is closed at the end."""
    engines = []

    def connect(stand_in, **settings):
        settings = {"url": stand_in.url, "batch_size": 4, "retries": 4, "timeout_seconds": 20.0} | settings
        engines.append(ServerEngine(Letters(), encode, EngineConfig(name="server", **settings)))
        stand_in.forget()
        return engines[-1]

    yield connect
    for engine in engines:
        engine.close()


def request(text):
    return Request(f"key of {text}", tuple(map(ord, text)))


def expected(text, finish_reason=STOP):
    output = text.upper() + "</think>" + text
    return Completion(f"key of {text}", tuple(encode(output)), output, finish_reason)


def texts(count):
    return [f"prompt {'x' * (i % 7)}{i}" for i in range(count)]


def wait_until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


# Generation


def test_completions_are_cut_at_the_stop_token(stand_in, connect):
    engine = connect(stand_in)
    completions = {completion.key: completion for completion in engine.generate(map(request, texts(30)), SAMPLING)}
    assert completions == {f"key of {text}": expected(text) for text in texts(30)}
    body = stand_in.bodies[0]
    assert body["model"] == "model-a"
    assert (body["temperature"], body["top_p"], body["max_tokens"]) == (0.6, 0.95, 50)
    assert body["stop_token_ids"] == [STOP_ID, OTHER_STOP_ID]
    # What a server would do by itself is off: cutting by top-k, penalties, leaving out control tokens.
    assert (body["top_k"], body["min_p"], body["repetition_penalty"], body["frequency_penalty"]) == (-1, 0, 1, 0)
    assert body["skip_special_tokens"] is body["spaces_between_special_tokens"] is body["ignore_eos"] is False


def test_the_budget_is_what_the_context_leaves(stand_in, connect):
    stand_in.models[0]["max_model_len"] = 30
    engine = connect(stand_in)
    long, full = "m" * 20, "m" * 30
    completions = {one.key: one for one in engine.generate(map(request, [long, full, "abc"]), SAMPLING)}
    assert completions[f"key of {full}"] == Completion(f"key of {full}", (), "", LENGTH)
    assert completions[f"key of {long}"] == Completion(f"key of {long}", tuple(map(ord, "M" * 10)), "M" * 10, LENGTH)
    assert completions["key of abc"] == expected("abc")
    assert sorted(body["max_tokens"] for body in stand_in.bodies) == [10, 27]
    assert list(connect(stand_in, max_length=3).generate([request("abc")], SAMPLING)) == [
        Completion("key of abc", (), "", LENGTH)
    ]


def test_a_seed_belongs_to_its_request(stand_in, connect):
    engine = connect(stand_in)
    seeds = []
    for order in (texts(20), texts(20)[::-1]):
        stand_in.forget()
        list(engine.generate(map(request, order), SAMPLING))
        seeds.append({tuple(body["prompt"]): body["seed"] for body in stand_in.bodies})
    assert seeds[0] == seeds[1]
    assert len(set(seeds[0].values())) == 20
    assert all(0 <= seed < 2**31 for seed in seeds[0].values())
    stand_in.forget()
    list(engine.generate(map(request, texts(20)), Sampling(0.6, 0.95, 50, 4, (STOP_ID,))))
    assert not {body["seed"] for body in stand_in.bodies} & set(seeds[0].values())


def test_no_more_requests_are_under_way_or_taken_than_there_is_room_for(stand_in, connect):
    engine = connect(stand_in, batch_size=4)
    gate = threading.Semaphore(0)
    stand_in.answer = lambda body: gate.acquire(timeout=10) and None
    taken, done = [], 0

    def requests():
        for text in texts(40):
            taken.append(text)
            assert len(taken) - done <= 4
            yield request(text)

    def let_one_by_one():
        for left in range(40, 0, -1):
            wait_until(lambda left=left: stand_in.under_way == min(4, left))
            gate.release()

    threading.Thread(target=let_one_by_one, daemon=True).start()
    for _ in engine.generate(requests(), SAMPLING):
        done += 1
    assert done == 40 and stand_in.most_under_way == 4


def test_a_request_may_depend_on_an_earlier_completion_without_draining_the_rest(stand_in, connect):
    engine = connect(stand_in, batch_size=4)
    slow_may_end = threading.Event()
    stand_in.answer = lambda body: slow_may_end.wait(10) and None if body["prompt"][0] == ord("w") else None
    seen = []

    def requests():
        yield request("first")
        yield request("waits")
        while not seen:
            yield None
        yield request("second")
        while len(seen) < 2:
            yield None
        slow_may_end.set()

    for completion in engine.generate(requests(), SAMPLING):
        seen.append(completion.key)
    assert seen == ["key of first", "key of second", "key of waits"]


def test_text_alone_is_enough_where_control_tokens_show_in_it(stand_in, connect):
    stand_in.token_ids = False
    completions = {one.key: one for one in connect(stand_in).generate(map(request, texts(9)), SAMPLING)}
    assert completions == {f"key of {text}": expected(text) for text in texts(9)}


def test_a_server_that_knows_openais_fields_alone_is_cut_by_the_engine(stand_in, connect):
    stand_in.takes_extras = False
    engine = connect(stand_in)
    output = "ab</think>c<over>d"
    stand_in.answer = lambda body: (200, {}, {"choices": [{"text": output, "finish_reason": "length"}]})
    assert list(engine.generate([request("x")], SAMPLING)) == [
        Completion("key of x", tuple(encode("ab</think>c")), "ab</think>c", STOP)
    ]
    assert not stand_in.bodies[0].keys() & {"stop_token_ids", "top_k", "ignore_eos", "return_token_ids"}


# Failures that pass


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


@pytest.mark.parametrize("wanted", ["1", lambda: formatdate(time.time() + 2, usegmt=True)], ids=["seconds", "date"])
def test_a_server_is_asked_again_when_it_wants_to_be(stand_in, connect, wanted):
    engine = connect(stand_in)
    times = []

    def answer(body):
        times.append(time.monotonic())
        value = wanted if isinstance(wanted, str) else wanted()
        return (429, {"Retry-After": value}, {}) if len(times) == 1 else None

    stand_in.answer = answer
    assert list(engine.generate([request("a")], SAMPLING)) == [expected("a")]
    assert 0.95 <= times[1] - times[0] < 3


def test_pauses_grow_and_have_a_limit(stand_in, connect, monkeypatch):
    monkeypatch.setattr(endpoint, "FIRST_PAUSE", 0.04)
    monkeypatch.setattr(endpoint, "LONGEST_PAUSE", 0.16)
    engine = connect(stand_in, retries=4)
    times = []

    def answer(body):
        times.append(time.monotonic())
        return 500, {}, {}

    stand_in.answer = answer
    with pytest.raises(RuntimeError):
        list(engine.generate([request("a")], SAMPLING))
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert len(pauses) == 4
    for pause, length in zip(pauses, (0.04, 0.08, 0.16, 0.16), strict=True):
        assert 0.75 * length <= pause < 1.25 * length + 0.1


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
    engine = connect(stand_in, batch_size=8, retries=8)
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


# Failures that do not pass


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
    shown = f"{caplog.text}{caught.value}{engine!r}{engine.__dict__!r}{engine._endpoint.__dict__ | {'_key': ''}}{output}"
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


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://user:secret@127.0.0.1:8000/v1", "OPENAI_API_KEY"),
        ("https://secret@example.org/v1", "OPENAI_API_KEY"),
        ("https://example.org/v1?key=secret", "OPENAI_API_KEY"),
        ("https://example.org/v1#secret", "OPENAI_API_KEY"),
        ("127.0.0.1:8000/v1", "no http:// or https:// address"),
        ("ftp://127.0.0.1/v1", "no http:// or https:// address"),
        ("http://:8000/v1", "no http:// or https:// address"),
        ("http://127.0.0.1:port/v1", "no address"),
    ],
)
def test_addresses_that_are_refused(url, message):
    with pytest.raises(UserError, match=message) as caught:
        check_address(url)
    assert "secret" not in str(caught.value)
    assert check_address("http://[::1]:8000/v1/") == "http://[::1]:8000/v1"


# What is found out at the start


def test_one_of_several_models_has_to_be_named(stand_in, connect):
    stand_in.models.append({"id": "model-b"})
    with pytest.raises(UserError, match=r"2 models; write engine.served_model=model-a or engine.served_model=model-b"):
        connect(stand_in)
    with pytest.raises(UserError, match=r"does not serve model-c; write engine.served_model=model-a"):
        connect(stand_in, served_model="model-c")
    engine = connect(stand_in, served_model="model-b")
    list(engine.generate([request("a" * 500)], SAMPLING))
    assert stand_in.bodies[0]["model"] == "model-b"
    stand_in.models.clear()
    with pytest.raises(UserError, match="0 models"):
        connect(stand_in)


@pytest.mark.parametrize(
    ("habit", "message"),
    [
        ({"token_ids": False, "keeps_controls": False}, "does not give <think> back"),
        ({"token_ids": False, "knows_bias": False}, "does not give <think> back"),
        ({"shift": 1, "token_ids": False}, "another tokenizer"),
        ({"takes_ids": False}, "does not take a prompt of token ids.*must be a string"),
        ({"extra_prompt_tokens": 1}, "it changes prompts"),
    ],
    ids=str,
)
def test_a_server_that_harms_prompts_or_marks_is_refused(stand_in, connect, habit, message):
    vars(stand_in).update(habit)
    with pytest.raises(UserError, match=message):
        connect(stand_in)
    assert not [thread for thread in threading.enumerate() if thread.name == "endpoint"]


def test_token_ids_prove_themselves(stand_in, connect):
    stand_in.keeps_controls, stand_in.knows_bias = False, False
    assert list(connect(stand_in).generate([request("a")], SAMPLING)) == [expected("a")]


# Scores


@pytest.mark.parametrize("way", ["prompt_logprobs", "echo"])
def test_scores_are_those_of_the_target(stand_in, connect, way):
    stand_in.logprobs = (way,)
    engine = connect(stand_in)
    stand_in.answer = lambda body: time.sleep(0.02)
    pairs = [([10, 20], [30, 40, 50]), ([1], []), ([7], [500]), *(([9] * (i + 1), [i + 100]) for i in range(20))]
    scores = engine.score(pairs)
    assert scores == [[-id_ / 1000 for id_ in target] for _, target in pairs]
    assert len(stand_in.bodies) == len(pairs) - 1 and stand_in.most_under_way <= 4


def test_a_server_without_scores_still_generates(stand_in, connect, capsys):
    stand_in.logprobs = ()
    engine = connect(stand_in)
    assert "NLL cannot be had" in capsys.readouterr().out
    assert list(engine.generate([request("a")], SAMPLING)) == [expected("a")]
    with pytest.raises(UserError, match="engine=transformers or engine=vllm"):
        engine.score([([1], [2])])


def test_a_pair_beyond_the_context_is_refused_before_anything_is_sent(stand_in, connect):
    engine = connect(stand_in)
    with pytest.raises(UserError, match=r"room for 400 tokens, and scoring takes 401.*--max-model-len 401"):
        engine.score([([1], [2]), ([1] * 200, [2] * 200)])
    assert not stand_in.bodies
    assert len(engine.score([([1] * 200, [2] * 199)])[0]) == 199


def test_scoring_between_two_completions(stand_in, connect):
    engine = connect(stand_in, batch_size=4)
    stand_in.answer = lambda body: time.sleep(0.02)
    completions, scores = [], []
    for completion in engine.generate(map(request, texts(20)), SAMPLING):
        completions.append(completion)
        scores += engine.score([([1], completion.token_ids)])
    assert {one.key: one for one in completions} == {f"key of {text}": expected(text) for text in texts(20)}
    assert scores == [[-id_ / 1000 for id_ in one.token_ids] for one in completions]
    assert stand_in.most_under_way <= 4


def test_a_refused_score_ends_the_rest(stand_in, connect):
    engine = connect(stand_in)
    stand_in.answer = lambda body: (400, {}, {"message": "no"}) if body["prompt"][1] == 66 else time.sleep(5)
    begun = time.monotonic()
    with pytest.raises(UserError, match="refuses a request of 2 tokens: status 400, no"):
        engine.score([([65], [id_]) for id_ in (67, 66, 68)])
    assert time.monotonic() - begun < 3


# The end


def test_closing_cancels_what_is_under_way(stand_in, connect):
    engine = connect(stand_in, batch_size=4)
    may_end = threading.Event()
    stand_in.answer = lambda body: may_end.wait(10) and None if body["prompt"][0] == ord("s") else None
    completions = engine.generate(map(request, ["fast", *(f"slow {i}" for i in range(9))]), SAMPLING)
    assert next(completions) == expected("fast")
    wait_until(lambda: stand_in.under_way == 3)
    begun = time.monotonic()
    engine.close()
    engine.close()
    assert time.monotonic() - begun < 2
    assert not [thread for thread in threading.enumerate() if thread.name == "endpoint"]
    may_end.set()
    assert len(stand_in.bodies) == 4


def test_leaving_a_generation_cancels_what_is_under_way(stand_in, connect):
    engine = connect(stand_in, batch_size=4)
    may_end = threading.Event()
    stand_in.answer = lambda body: may_end.wait(10) and (200, {}, b"x" * 10**7) if body["prompt"][0] == ord("s") else None
    completions = engine.generate(map(request, ["fast", "slow 1", "slow 2"]), SAMPLING)
    assert next(completions) == expected("fast")
    wait_until(lambda: stand_in.under_way == 2)
    completions.close()
    may_end.set()
    wait_until(lambda: stand_in.hung_up == 2)
    assert list(engine.generate([request("again")], SAMPLING)) == [expected("again")]


INTERRUPTED = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
from dgr_lightning.config import EngineConfig
from dgr_lightning.engines import Request, Sampling
from dgr_lightning.engines.server import ServerEngine
from tests.test_server_engine import Letters, encode
engine = ServerEngine(Letters(), encode, EngineConfig(name="server", url=sys.argv[1]))
requests = [Request(str(i), [115]) for i in range(9)]
list(engine.generate(requests, Sampling(0, 1.0, 9, 0, (2,))))
"""


@pytest.mark.slow
def test_an_interrupt_ends_the_process_at_once(stand_in):
    stand_in.answer = lambda body: time.sleep(60) if body["prompt"] == [115] else None
    root = Path(__file__).resolve().parent.parent
    process = subprocess.Popen([sys.executable, "-c", INTERRUPTED, stand_in.url], cwd=root, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: stand_in.under_way == 9, 90)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == -signal.SIGINT and "KeyboardInterrupt" in errors


# A real server


@pytest.fixture(scope="module")
def real(vllm_server, micro_folder):
    """The miniature in fp32 behind vLLM's server and in the transformers engine, with prompts of its own language."""
    from dgr_lightning.chat import Chat
    from dgr_lightning.engines.transformers import TransformersEngine
    from dgr_lightning.micro.requests import all_requests
    from dgr_lightning.models import load_model

    chat = Chat.load(micro_folder)
    server = ServerEngine(
        chat,
        lambda text: chat.tokenizer.encode(text, add_special_tokens=False),
        EngineConfig(name="server", url=vllm_server, batch_size=16),
    )
    prompts = [one.prompt for harmful in (True, False) for one in all_requests(harmful, "evaluation")]
    prompts = random.Random(0).sample(prompts, 48)
    requests = [Request(f"r{i}", chat.prompt_ids(prompt)) for i, prompt in enumerate(prompts)]
    yield server, TransformersEngine(load_model(micro_folder, "fp32", "cpu"), chat, "fp32", 16), requests, chat.stop_ids
    server.close()


@pytest.mark.slow
def test_vllm_serve_generates_what_transformers_does(real):
    server, transformers, requests, stop_ids = real
    sampling = Sampling(0, 1.0, 96, 0, stop_ids)
    expected = {one.key: one for one in transformers.generate(iter(requests), sampling)}
    assert {one.key: one for one in server.generate(iter(requests), sampling)} == expected
    short = Sampling(0, 1.0, 3, 0, stop_ids)
    assert {one.key: one for one in server.generate(iter(requests), short)} == {
        one.key: one for one in transformers.generate(iter(requests), short)
    }
    pairs = [(one.prompt_ids, expected[one.key].token_ids) for one in requests]
    scores = zip(server.score(pairs), transformers.score(pairs), strict=True)
    assert max(abs(a - b) for one, other in scores for a, b in zip(one, other, strict=True)) < 1e-3


@pytest.mark.slow
def test_vllm_serve_samples_the_same_from_the_same_seed(real):
    server, _, requests, stop_ids = real
    drawn = [
        {one.key: one for one in server.generate(order, Sampling(2.0, 0.95, 24, seed, stop_ids))}
        for order, seed in ((requests, 1), (requests[::-1], 1), (requests, 2))
    ]
    assert drawn[0] == drawn[1]
    # The miniature is sure of most of what it says.
    assert sum(drawn[0][key] != drawn[2][key] for key in drawn[0]) > 5


@pytest.mark.slow
def test_vllm_serve_is_refused_a_pair_beyond_its_context(real):
    server, _, requests, _ = real
    with pytest.raises(UserError, match="--max-model-len"):
        server.score([(requests[0].prompt_ids, [7] * 5000)])
    too_long = Request("long", [7] * 5000)
    assert [one.finish_reason for one in server.generate([too_long], Sampling(0, 1.0, 9, 0, ()))] == [LENGTH]
