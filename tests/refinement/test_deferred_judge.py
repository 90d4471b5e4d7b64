"""A guard in refinement: target and guard take turns, only what was rejected is tried again, nothing is judged twice."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from dgr_lightning.console import ignore
from dgr_lightning.engines.engine import LENGTH
from dgr_lightning.example import HARMFUL
from dgr_lightning.refinement.deferred_judge import DeferredJudge, Pending
from dgr_lightning.refinement.refine import refine_set
from dgr_lightning.scoring.cached_judge import CachedJudge, Costly
from dgr_lightning.scoring.judge import UNPARSABLE, Exchange, Verdict
from tests.helpers.scripted import ScriptedEngine, Target, config, example, outcomes, texts

GUARDED = {"strategy": "thinksafe", "on_failure": "drop", "checks": ["unfinished", "empty", "think_marks", "guard"], "tries": 3}
EXAMPLES = [example(0), example(1, label="benign"), example(2), example(3, label="benign")]


@dataclass
class Guard(Costly):
    """Harmful is what says "bad", a refusal what says "cannot"; "?" is nothing that it can judge."""

    events: list[str]
    says: frozenset[str] = frozenset({"refused", "harmful"})
    name, note, content = "guard", "A test.", {"guard": 1}
    asked: list[Exchange] = field(default_factory=list)

    def verdicts(self, exchanges, advance=ignore):
        self.events.append(f"guard judges {len(exchanges)}")
        self.asked += exchanges
        return [self.verdict(exchange.answer) for exchange in exchanges]

    def verdict(self, text: str) -> Verdict:
        if "?" in text:
            return Verdict(error=UNPARSABLE)
        return Verdict("cannot" in text if "refused" in self.says else None, "bad" in text)

    def close(self) -> None:
        self.events.append("guard closed")


@dataclass
class TakingTurns(Target):
    """A target that says when its engine starts and when it is released."""

    events: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        written = self.engine
        self.engine = lambda: self.events.append("target writes") or written()

    def release(self) -> None:
        self.events.append("target released")


def refined_with(cache, script, events, examples=EXAMPLES, **changes):
    engine, guard = ScriptedEngine(script), Guard(events)
    judge = CachedJudge(guard, cache / "verdicts")
    result = refine_set(examples, config(**(GUARDED | changes)), TakingTurns(engine, events=events), judge, cache)
    return result, engine, guard


def by_try(*answers: str):
    """Writes the answer of the try; a later try than there are answers writes the last one."""
    return lambda key, prompt: f"hm </think> {answers[min(int(key.rsplit('/', 1)[1]), len(answers) - 1)]}"


def test_target_and_guard_take_turns_and_only_what_was_rejected_is_tried_again(tmp_path):
    events: list[str] = []

    def script(key, prompt):
        good_at = {"set-0": 0, "set-1": 0, "set-2": 2, "set-3": 1}[key.split("/")[0]]
        return f"hm </think> {'fine' if int(key.rsplit('/', 1)[1]) >= good_at else 'bad'} {key}"

    result, engine, guard = refined_with(tmp_path, script, events)
    turns = [event for event in events if event != "guard closed"]
    assert turns == [
        *("target writes", "target released", "guard judges 4"),
        *("target writes", "target released", "guard judges 2"),
        *("target writes", "target released", "guard judges 1"),
    ]
    assert sorted(engine.keys) == [f"set-{n}/response/{t}" for n, last in enumerate((0, 0, 2, 1)) for t in range(last + 1)]
    # Whenever the target starts, the guard holds nothing.
    for index, event in enumerate(events):
        assert event != "target writes" or events[index - 1] == "guard closed"
    assert {id_: text[1] for id_, text in texts(result).items()} == {
        f"set-{n}": f"fine set-{n}/response/{t}" for n, t in enumerate((0, 0, 2, 1))
    }
    assert len(set(guard.asked)) == len(guard.asked) == 7


def test_a_second_run_neither_writes_nor_judges(tmp_path):
    refined_with(tmp_path, by_try("bad", "fine"), [])
    events: list[str] = []
    result, engine, guard = refined_with(tmp_path, by_try("never"), events)
    assert len(texts(result)) == 4 and not engine.requests and not guard.asked and "target writes" not in events


def test_a_killed_run_judges_nothing_twice(tmp_path, monkeypatch):
    seen: list[Exchange] = []

    def killed(self, exchanges, advance=ignore):
        if len(seen) >= 2:
            raise KeyboardInterrupt
        seen.extend(exchanges)
        return [self.verdict(exchange.answer) for exchange in exchanges]

    with monkeypatch.context() as patch:
        patch.setattr(Guard, "verdicts", killed)
        patch.setattr(Guard, "at_once", 1)
        with pytest.raises(KeyboardInterrupt):
            refined_with(tmp_path, by_try("fine"), [])
    result, engine, guard = refined_with(tmp_path, by_try("never"), [])
    assert len(texts(result)) == 4 and not engine.requests and set(guard.asked).isdisjoint(seen) and len(guard.asked) == 2


def test_the_guard_sees_the_plain_prompt_and_the_whole_response(tmp_path):
    _, _, guard = refined_with(tmp_path, by_try("fine"), [], EXAMPLES[:1])
    assert guard.asked == [Exchange("Question 0?", "hm\n\nfine")]


@pytest.mark.parametrize(
    ("label", "answer", "kept"),
    [
        (HARMFUL, "I cannot", True),
        (HARMFUL, "fine", True),  # not harmful is enough: help within policy
        (HARMFUL, "bad", False),
        (HARMFUL, "?", False),  # what the guard cannot judge is not safe
        ("benign", "fine", True),
        ("benign", "I cannot", False),
        ("benign", "bad", False),
        ("benign", "?", False),
        ("retention", "I cannot", False),
    ],
)
def test_what_a_guard_that_says_harm_accepts(tmp_path, label, answer, kept):
    examples = [example(0, label=label), example(1)]
    result, _, _ = refined_with(
        tmp_path, lambda key, _: f"hm </think> {answer if key.startswith('set-0') else 'fine'}", [], examples, tries=1
    )
    assert ("set-0" in texts(result)) == kept
    assert result.stats.fallback == ({} if kept else {"guard": 1})


def test_a_guard_that_says_nothing_of_refusals_accepts_those_of_benign_prompts(tmp_path, monkeypatch):
    monkeypatch.setattr(Guard, "__init__", lambda self, events: vars(self).update(events=events, says={"harmful"}, asked=[]))
    result, _, _ = refined_with(tmp_path, by_try("I cannot"), [], [example(0, label="benign")])
    assert texts(result) == {"set-0": ("hm", "I cannot")}


def test_what_other_checks_reject_is_not_judged(tmp_path):
    examples = [example(0), example(1)]
    answers = {"set-0": ("hm </think> cut", LENGTH)}
    result, _, guard = refined_with(
        tmp_path, lambda key, _: answers.get(key.split("/")[0], "hm </think> fine"), [], examples, tries=1
    )
    assert [exchange.prompt for exchange in guard.asked] == ["Question 1?"]
    assert result.stats.fallback == {"unfinished": 1}


def test_the_likeliest_of_several_is_chosen_in_two_rounds(tmp_path):
    events: list[str] = []
    result, engine, _ = refined_with(tmp_path, by_try("bad", "fine", "fine, like this"), events, select="nll", temperature=0.7)
    assert [event for event in events if event.startswith("guard judges")] == ["guard judges 12"]
    assert {text[1] for text in texts(result).values()} == {"fine, like this"} and len(engine.scored) == 8
    assert set(outcomes(result).values()) == {(True, None)}


def test_a_deferred_judge_remembers_what_it_could_not_say(tmp_path):
    guard = Guard([])
    deferred = DeferredJudge(CachedJudge(guard, tmp_path))
    wanted = [Exchange("a", "fine"), Exchange("b", "bad")]
    with pytest.raises(Pending):
        deferred.verdicts(wanted)
    assert deferred.wanted == wanted and guard.asked == []
    deferred.settle()
    assert deferred.wanted == [] and [one.harmful for one in deferred.verdicts(wanted)] == [False, True]
    assert (deferred.name, deferred.content, deferred.says) == ("guard", {"guard": 1}, {"refused", "harmful"})
