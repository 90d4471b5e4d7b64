"""Any OpenAI-compatible server as an engine: against a stand-in with every bad habit, and against a real vLLM."""

import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from dgr_lightning.config import EngineConfig
from dgr_lightning.engines.engine import LENGTH, Completion, Request, Sampling
from dgr_lightning.engines.server.engine import ServerEngine
from dgr_lightning.errors import UserError
from tests.helpers.runs import ROOT
from tests.helpers.stand_in import (
    OTHER_STOP_ID,
    SAMPLING,
    STOP_ID,
    client_threads,
    expected,
    request,
    texts,
    wait_until,
)

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


def test_top_k_is_sent_and_refused_by_a_server_that_takes_none(stand_in, connect):
    engine, sampling = connect(stand_in), replace(SAMPLING, top_k=20)
    assert list(engine.generate([request("abc")], sampling)) == [expected("abc")]
    assert stand_in.bodies[0]["top_k"] == 20
    stand_in.takes_extras = False
    strict = connect(stand_in)
    with pytest.raises(UserError, match=r"takes no field but OpenAI's own.*top_k=20.*refine\.top_k=0"):
        list(strict.generate([request("abc")], sampling))
    assert next(iter(strict.generate([request("abc")], replace(sampling, temperature=0.0)))).text


def test_a_repetition_penalty_is_sent_and_refused_by_a_server_that_takes_none(stand_in, connect):
    engine, sampling = connect(stand_in), replace(SAMPLING, repetition_penalty=1.2)
    assert list(engine.generate([request("abc")], sampling)) == [expected("abc")]
    assert stand_in.bodies[0]["repetition_penalty"] == 1.2
    stand_in.takes_extras = False
    strict = connect(stand_in)
    with pytest.raises(UserError, match=r"repetition_penalty=1\.2 is none.*evaluation\.repetition_penalty=1,"):
        list(strict.generate([request("abc")], sampling))
    assert list(strict.generate([request("abc")], SAMPLING))


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
    assert "cannot compute NLL" in capsys.readouterr().out
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
    stand_in.answer = lambda body: (400, {}, {"message": "no"}) if body["prompt"][1] == 66 else time.sleep(30)
    begun = time.monotonic()
    with pytest.raises(UserError, match="refuses a request of 2 tokens: status 400, no"):
        engine.score([([65], [id_]) for id_ in (67, 66, 68)])
    assert time.monotonic() - begun < 15


# The end


def test_closing_cancels_what_is_under_way(stand_in, connect):
    before = client_threads()
    engine = connect(stand_in, batch_size=4)
    may_end = threading.Event()
    stand_in.answer = lambda body: may_end.wait(10) and None if body["prompt"][0] == ord("s") else None
    completions = engine.generate(map(request, ["fast", *(f"slow {i}" for i in range(9))]), SAMPLING)
    assert next(completions) == expected("fast")
    wait_until(lambda: stand_in.under_way == 3)
    begun = time.monotonic()
    engine.close()
    engine.close()
    assert time.monotonic() - begun < 8
    assert client_threads() <= before
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
from dgr_lightning.engines.engine import Request, Sampling
from dgr_lightning.engines.server.engine import ServerEngine
from tests.helpers.stand_in import Letters, encode
engine = ServerEngine(Letters(), encode, EngineConfig(name="server", url=sys.argv[1]))
requests = [Request(str(i), [115]) for i in range(9)]
list(engine.generate(requests, Sampling(0, 1.0, 9, 0, (2,))))
"""


@pytest.mark.slow
def test_an_interrupt_ends_the_process_at_once(stand_in):
    stand_in.answer = lambda body: time.sleep(60) if body["prompt"] == [115] else None
    process = subprocess.Popen([sys.executable, "-c", INTERRUPTED, stand_in.url], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: stand_in.under_way == 9, 90)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=45)
    assert process.returncode == -signal.SIGINT and "KeyboardInterrupt" in errors


# A real server


@pytest.fixture(scope="module")
def real(vllm_server, micro_folder):
    """The miniature in fp32 behind vLLM's server and in the transformers engine, with prompts of its own language."""
    from dgr_lightning.engines.transformers.engine import TransformersEngine
    from dgr_lightning.micro.requests import all_requests
    from dgr_lightning.models.chat import Chat
    from dgr_lightning.models.weights import load_model

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
