"""Verdicts by content: judged once, whoever asks, whatever interrupted it; and no text on disk."""

import threading
import time
from pathlib import Path

import pytest

from dgr_lightning.config import Config
from dgr_lightning.console import ignore
from dgr_lightning.errors import UserError
from dgr_lightning.generation.shards import NUM_SHARDS, ShardedRows
from dgr_lightning.hashes import content_hash
from dgr_lightning.scoring.cached_judge import CachedJudge, Costly, open_cached_judge
from dgr_lightning.scoring.judge import FAILED, UNPARSABLE, Exchange, Verdict
from dgr_lightning.scoring.judges.keywords import KeywordJudge

EXCHANGES = [Exchange(f"prompt {n}", f"reply {n}") for n in range(200)]


class Counting(Costly):
    """Finds harm in every third text; dies after so many exchanges."""

    name, note, says, at_once = "counting", "A test.", frozenset({"harmful"}), 16

    def __init__(self, content="c", dies_after: int | None = None, error: str | None = None) -> None:
        self.content, self.dies_after, self.error = {"content": content}, dies_after, error
        self.asked: list[Exchange] = []
        self.closed = 0

    def verdicts(self, exchanges, advance=ignore):
        self.asked += exchanges
        if self.dies_after is not None and len(self.asked) > self.dies_after:
            raise KeyboardInterrupt
        advance(len(exchanges))
        return [self.verdict(exchange) for exchange in exchanges]

    def verdict(self, exchange: Exchange) -> Verdict:
        if self.error:
            return Verdict(error=self.error)
        return Verdict(harmful=int(exchange.answer.split()[-1]) % 3 == 0, probability=0.25)

    def close(self) -> None:
        self.closed += 1


def judged(root: Path, judge: Counting, exchanges=EXCHANGES, advance=ignore) -> list[Verdict]:
    cached = CachedJudge(judge, root)
    try:
        return cached.verdicts(exchanges, advance)
    finally:
        cached.close()


def test_nothing_is_judged_twice(tmp_path):
    first, again = Counting(), Counting()
    expected = [first.verdict(one) for one in EXCHANGES]
    repeated = [*EXCHANGES, *EXCHANGES[:7]]
    counted = []
    assert judged(tmp_path, first, repeated, counted.append) == expected + expected[:7]
    assert sorted(first.asked) == sorted(EXCHANGES) and sum(counted) == len(repeated) and first.closed == 1
    assert judged(tmp_path, again, EXCHANGES[50:]) == expected[50:] and again.asked == []


def test_an_interrupted_judge_goes_on_where_it_was(tmp_path):
    dying, other = Counting(dies_after=100), Counting()
    with pytest.raises(KeyboardInterrupt):
        judged(tmp_path, dying)
    expected = [other.verdict(one) for one in EXCHANGES]
    assert judged(tmp_path, other) == expected
    kept = len(EXCHANGES) - len(other.asked)
    assert 100 - Counting.at_once <= kept <= 100
    assert set(other.asked).isdisjoint(dying.asked[:kept])


def test_a_judge_that_fails_keeps_nobody_waiting(tmp_path):
    dying = CachedJudge(Counting(dies_after=0), tmp_path)
    with pytest.raises(KeyboardInterrupt):
        dying.verdicts(EXCHANGES)
    assert len(judged(tmp_path, Counting())) == len(EXCHANGES)
    dying.close()


def test_another_content_judges_anew(tmp_path):
    judged(tmp_path, Counting("a"), EXCHANGES[:3])
    other = Counting("b")
    judged(tmp_path, other, EXCHANGES[:3])
    assert len(other.asked) == 3 and len(list(tmp_path.iterdir())) == 2


def test_no_text_is_on_disk(tmp_path):
    secret = Exchange("a request to forge", "how to forge 3")
    judged(tmp_path, Counting(), [secret])
    stored = "".join(file.read_text() for file in tmp_path.rglob("*.jsonl"))
    assert content_hash(*secret) in stored and "forge" not in stored


def test_errors_of_the_judges_answer_are_stored_and_a_judge_that_could_not_be_asked_is_asked_again(tmp_path):
    for error, times in ((UNPARSABLE, 1), (FAILED, 2)):
        judges = [Counting(error, error=error) for _ in range(2)]
        for judge in judges:
            assert judged(tmp_path, judge, EXCHANGES[:2]) == [Verdict(error=error)] * 2
        assert sum(bool(judge.asked) for judge in judges) == times


def test_a_cache_that_can_only_be_read_is_judged_in_memory(tmp_path, monkeypatch):
    def refuse(self, number, *, wait):
        raise UserError("not writable")

    monkeypatch.setattr(ShardedRows, "claim", refuse)
    judge = Counting()
    cached = CachedJudge(judge, tmp_path)
    assert cached.verdicts(EXCHANGES[:20]) == cached.verdicts(EXCHANGES[:20]) and len(judge.asked) == 20


def test_what_another_process_judges_is_waited_for_and_not_judged_again(tmp_path):
    expected = judged(tmp_path / "elsewhere", Counting())
    mine = Counting()
    cached = CachedJudge(mine, tmp_path / "here")
    header = {"judge": "counting", "content": mine.content}
    theirs = ShardedRows(tmp_path / "here" / content_hash(header), header)
    for number in range(NUM_SHARDS // 2):
        assert theirs.claim(number, wait=False)
    done = []
    thread = threading.Thread(target=lambda: done.extend(cached.verdicts(EXCHANGES)))
    thread.start()
    deadline = time.monotonic() + 30
    while not mine.asked and time.monotonic() < deadline:
        time.sleep(0.01)
    left = set(EXCHANGES)
    for one, verdict in zip(EXCHANGES, expected, strict=True):
        key = content_hash(*one)
        if theirs._shards[_shard(key)].writer:
            theirs.write(key, vars(verdict))
            left.discard(one)
    theirs.close()
    thread.join(30)
    assert done == expected and set(mine.asked) == left and 0 < len(left) < len(EXCHANGES)


def _shard(key: str) -> int:
    from dgr_lightning.generation.shards import shard_of

    return shard_of(key)


def test_figures_are_called_by_the_judge_and_a_cheap_judge_is_not_cached(tmp_path):
    cached = CachedJudge(Counting(), tmp_path)
    assert (cached.name, cached.note, cached.says, cached.content) == ("counting", "A test.", {"harmful"}, {"content": "c"})
    assert isinstance(open_cached_judge(Config()), KeywordJudge)


def test_ten_thousand_verdicts_are_read_again_in_seconds(tmp_path):
    many = [Exchange(f"prompt {n % 313}", f"reply {n}") for n in range(10_000)]
    judge = Counting()
    judge.at_once = 1024
    judged(tmp_path, judge, many)
    again, start = Counting(), time.monotonic()
    judged(tmp_path, again, many)
    assert again.asked == [] and time.monotonic() - start < 10
