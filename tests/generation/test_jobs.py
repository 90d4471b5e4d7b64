"""From requests to stored completions: nothing is generated twice, jobs go on as they can, processes share the work."""

import os
import random
import subprocess
import sys

import pytest

from dgr_lightning.engines.engine import LENGTH, Completion, Request, Sampling
from dgr_lightning.engines.request_queue import RequestQueue
from dgr_lightning.generation.completions import CompletionStore, StoredCompletion
from dgr_lightning.generation.jobs import Jobs, StoredRequest, generate_stored, run_jobs
from dgr_lightning.generation.shards import shard_of
from tests.helpers.runs import ROOT

HEADER = {"model": "abc"}
SAMPLING = Sampling(temperature=0, top_p=1.0, max_new_tokens=4, seed=0, stop_ids=(0,))


class Letters:
    """Token n is the n-th letter; a request is answered with its prompt backwards, `batch` at a time, in random order."""

    def __init__(self, batch: int = 4, fail_after: int | None = None):
        self.batch, self.fail_after = batch, fail_after
        self.generated: list[str] = []
        self.most_under_way = 0
        self.scored: list[int] = []

    def generate(self, requests, sampling):
        queue, under_way = RequestQueue(requests), []
        rng = random.Random(0)
        while under_way or not queue.exhausted:
            under_way += queue.take(self.batch - len(under_way))
            self.most_under_way = max(self.most_under_way, len(under_way))
            if under_way:
                if len(self.generated) == self.fail_after:
                    raise RuntimeError("out of memory")
                request = under_way.pop(rng.randrange(len(under_way)))
                self.generated.append(request.key)
                ids = tuple(request.prompt_ids[::-1])
                yield Completion(request.key, ids, "".join(chr(97 + id_) for id_ in ids), LENGTH)

    def score(self, pairs):
        self.scored.append(len(pairs))
        return [[-float(sum(target))] for _, target in pairs]


def requests(*keys):
    return [Request(key, (0, 1, int(key.partition("/")[0]) % 20)) for key in keys]


def fill(letters, folder, *keys):
    with CompletionStore(folder, HEADER) as store:
        generate_stored(lambda: letters, [(store, requests(*keys))], SAMPLING, "Letters")
        return {key: store.get(key) for key in keys}


def test_only_what_is_missing_is_generated(tmp_path):
    letters = Letters()
    first = fill(letters, tmp_path, "1", "2")
    assert first == {"1": StoredCompletion("bba", 3, LENGTH), "2": StoredCompletion("cba", 3, LENGTH)}
    second = fill(letters, tmp_path, "3", "2", "1")
    assert {key: second[key] for key in first} == first
    assert sorted(letters.generated) == ["1", "2", "3"]


def test_no_engine_is_built_and_no_lock_taken_where_everything_is_stored(tmp_path):
    fill(Letters(), tmp_path, "1")
    with CompletionStore(tmp_path, HEADER) as writer:
        writer.claim(shard_of("1"), wait=False)
        reader = CompletionStore(tmp_path, HEADER)
        generate_stored(pytest.fail, [(reader, requests("1"))], SAMPLING, "Letters")


def test_two_requests_of_one_key_are_a_mistake(tmp_path):
    with pytest.raises(ValueError, match="same name"):
        fill(Letters(), tmp_path, "1", "1")


def test_what_an_engine_finished_before_it_failed_is_kept(tmp_path):
    broken = Letters(fail_after=2)
    with pytest.raises(RuntimeError):
        fill(broken, tmp_path, "1", "2", "3")
    letters = Letters()
    fill(letters, tmp_path, "1", "2", "3")
    assert sorted(broken.generated + letters.generated) == ["1", "2", "3"]


def chain(name, length, ended, store):
    """A job whose every request shows what the one before it brought."""
    ids = (int(name) % 20,)
    for link in range(length):
        yield [StoredRequest(store, f"{name}/{link}", f"{name}/{link}", lambda ids=ids: ids)]
        ids = (*ids, store.get(f"{name}/{link}").num_tokens)
    ended[name] = ids


def test_jobs_ask_in_turn_and_the_batch_stays_full(tmp_path):
    names, ended, letters = [str(number) for number in range(40)], {}, Letters(batch=8)
    with CompletionStore(tmp_path, HEADER) as store:
        num = run_jobs([Jobs(names, lambda i: chain(names[i], 3, ended, store), [store])], lambda: letters, SAMPLING, "chains")
    assert num == 120 == len(set(letters.generated)) and letters.most_under_way == 8
    assert ended == {name: (int(name) % 20, 1, 2, 3) for name in names}
    # Later links join while other chains have not begun: no wave waits for the one before it.
    assert next(i for i, key in enumerate(letters.generated) if key.endswith("/2")) < 40


def test_no_more_jobs_are_begun_than_the_engine_has_room_for(tmp_path):
    begun, letters = [], Letters(batch=4)

    def job(index):
        begun.append(index)
        assert len(begun) <= len(letters.generated) + 5
        yield [StoredRequest(store, f"{index}/0", f"{index}/0", lambda: (1, 2))]

    with CompletionStore(tmp_path, HEADER) as store:
        run_jobs([Jobs([str(i) for i in range(500)], job, [store])], lambda: letters, SAMPLING, "jobs")
    assert len(letters.generated) == 500


def test_scores_are_asked_for_in_batches_and_sent_back_to_those_who_asked(tmp_path):
    found, letters = {}, Letters(batch=8)

    def job(index):
        yield [StoredRequest(store, f"{index}/{n}", f"{index}/{n}", lambda: (1, 2)) for n in range(3)]
        scores = yield [((1,), (index, n)) for n in range(3)]
        found[index] = [score for (score,) in scores]
        yield [StoredRequest(store, f"{index}/last", f"{index}/last", lambda: (3,))]

    with CompletionStore(tmp_path, HEADER) as store:
        run_jobs([Jobs([str(i) for i in range(200)], job, [store])], lambda: letters, SAMPLING, "jobs")
    assert found == {i: [-float(i), -float(i + 1), -float(i + 2)] for i in range(200)}
    assert len(letters.generated) == 800 and sum(letters.scored) == 600 and len(letters.scored) < 30


def test_sets_run_in_one_stream_in_their_order_and_keep_what_is_theirs(tmp_path):
    """The same names in both stores, as two tasks may have the same ids: each completion has its own place."""
    letters, streams = Letters(batch=8), []
    with CompletionStore(tmp_path / "a", HEADER) as first, CompletionStore(tmp_path / "b", HEADER) as second:

        def engine():
            streams.append(letters)
            return letters

        wanted = [(first, requests(*map(str, range(30)))), (second, requests(*map(str, range(20, 60))))]
        generate_stored(engine, wanted, SAMPLING, "Letters")
        assert len(streams) == 1, "no engine is drained between two sets"
        assert sorted(first, key=int) == [str(n) for n in range(30)]
        assert sorted(second, key=int) == [str(n) for n in range(20, 60)]
        assert all(store.get(key).text[0] == chr(97 + int(key) % 20) for store in (first, second) for key in store)
    generated = letters.generated
    assert len(generated) == 70 and letters.most_under_way == 8
    assert {key for key in generated if generated.count(key) == 2} == {str(n) for n in range(20, 30)}
    # Nothing of the second set before the last of the first has begun.
    assert min(generated.index(str(n)) for n in range(30, 60)) >= 30 - 8


def test_a_key_that_is_being_generated_for_another_set_waits_for_its_turn(tmp_path):
    """Engines know requests by their keys, so that two of one key are never under way together."""

    class Watching(Letters):
        def generate(self, wanted, sampling):
            open_keys = set()

            def taken():
                for request in wanted:
                    assert request is None or request.key not in open_keys
                    open_keys.update([] if request is None else [request.key])
                    yield request

            for completion in super().generate(taken(), sampling):
                open_keys.discard(completion.key)
                yield completion

    letters, stores = Watching(batch=16), [CompletionStore(tmp_path / str(n), HEADER) for n in range(3)]
    generate_stored(lambda: letters, [(store, requests("1", "2")) for store in stores], SAMPLING, "Letters")
    assert sorted(letters.generated) == ["1"] * 3 + ["2"] * 3 and all(len(store) == 2 for store in stores)
    for store in stores:
        store.close()


def test_only_the_shards_of_a_set_that_lacks_something_are_claimed(tmp_path):
    fill(Letters(), tmp_path / "whole", "1", "2")
    with CompletionStore(tmp_path / "whole", HEADER) as other:
        other.claim(shard_of("1"), wait=False)
        whole, empty = CompletionStore(tmp_path / "whole", HEADER), CompletionStore(tmp_path / "empty", HEADER)
        with whole, empty:
            generate_stored(Letters, [(whole, requests("1", "2")), (empty, requests("1", "2"))], SAMPLING, "Letters")
            assert len(empty) == 2


def test_interrupted_anywhere_and_taken_up_nothing_is_generated_twice(tmp_path):
    names, once = [str(number) for number in range(12)], Letters()
    with CompletionStore(tmp_path / "whole", HEADER) as store:
        run_jobs([Jobs(names, lambda i: chain(names[i], 3, {}, store), [store])], lambda: once, SAMPLING, "chains")
    for stop in (0, 1, 7, 20, 35):
        broken, letters, ended = Letters(fail_after=stop), Letters(), {}
        for engine in (broken, letters):
            with CompletionStore(tmp_path / str(stop), HEADER) as store:
                jobs = Jobs(names, lambda i: chain(names[i], 3, ended, store), [store])  # noqa: B023
                try:
                    run_jobs([jobs], lambda: engine, SAMPLING, "chains")  # noqa: B023
                except RuntimeError:
                    assert engine is broken
        assert sorted(broken.generated + letters.generated) == sorted(once.generated)
        assert len(ended) == 12


# Real processes

SHARING = """
import sys, time
from pathlib import Path
from tests.generation.test_jobs import HEADER, SAMPLING, Letters, chain
from dgr_lightning.generation.jobs import Jobs, run_jobs
from dgr_lightning.generation.completions import CompletionStore

class Slow(Letters):
    def generate(self, requests, sampling):
        for completion in super().generate(requests, sampling):
            time.sleep(0.02)
            yield completion

names, ended, letters = [str(n) for n in range(100)], [{}, {}], Slow()
folder = Path(sys.argv[1])
with CompletionStore(folder / "a", HEADER) as first, CompletionStore(folder / "b", HEADER) as second:
    print("ready", flush=True)
    sys.stdin.readline()
    sets = [
        Jobs(names, lambda i: chain(names[i], 2, ended[0], first), [first]),
        Jobs(names, lambda i: chain(names[i], 2, ended[1], second), [second]),
    ]
    run_jobs(sets, lambda: letters, SAMPLING, "chains")
assert [len(own) for own in ended] == [100, 100]
Path(sys.argv[2]).write_text(" ".join(letters.generated))
"""


def test_processes_that_run_the_same_command_share_the_work(tmp_path):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SHARING, str(tmp_path / "store"), str(tmp_path / f"{n}.txt")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=ROOT,
        )
        for n in range(3)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    shares = [(tmp_path / f"{n}.txt").read_text().split() for n in range(3)]
    generated = [key for share in shares for key in share]
    assert sorted(generated) == sorted([f"{n}/{link}" for n in range(100) for link in range(2)] * 2), "once for each store"
    assert min(map(len, shares)) > 40, "none of them stood idle"
    assert any("waiting" in output for output in outputs)
    assert [len(CompletionStore(tmp_path / "store" / name, HEADER)) for name in ("a", "b")] == [200, 200]
