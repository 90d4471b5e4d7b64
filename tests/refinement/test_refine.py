"""The refine stage on a scripted model: what it is asked, what is kept, what falls back, what is never generated twice."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from rich.console import Console

from dgr_lightning.config import Config, EngineConfig, RefineConfig
from dgr_lightning.engines.engine import LENGTH, STOP, Completion, Request, Sampling
from dgr_lightning.engines.request_queue import RequestQueue
from dgr_lightning.errors import UserError
from dgr_lightning.example import Example, read_refined
from dgr_lightning.files import write_jsonl
from dgr_lightning.models.thinking import Parsed
from dgr_lightning.refinement import outcome
from dgr_lightning.refinement import refine as refine_module
from dgr_lightning.refinement.outcome import RefinementStats, show_refinement
from dgr_lightning.refinement.refine import Refinement, refine
from dgr_lightning.scoring.judge import Exchange

END = 0


class CharacterTokenizer:
    """One token a character."""

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        return [ord(character) for character in text]


class CharacterChat:
    """A chat whose ids are code points; prompts end in an opening mark, which thinking=False closes."""

    style = "think"
    stop_ids = (END,)
    pad_id = END
    tokenizer = CharacterTokenizer()

    def prompt_ids(self, prompt: str, thinking: bool = True) -> list[int]:
        return [ord(character) for character in f"user: {prompt} <think>" + ("" if thinking else "</think>")]

    def target_ids(self, trace: str, answer: str) -> list[int]:
        return [*map(ord, f"{trace}</think>{answer}"), END]

    def part_spans(self, ids: Sequence[int]) -> tuple[range, range]:
        close = "".join(map(chr, ids)).index("</think>")
        return range(close), range(close + len("</think>"), len(ids) - 1)

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))

    def parse(self, text: str, thinking: bool = True) -> Parsed:
        if not thinking:
            return Parsed("", text.strip())
        trace, mark, answer = text.partition("</think>")
        return Parsed(trace.strip(), answer.strip() if mark else None)

    def has_marks(self, text: str) -> bool:
        return "<think>" in text or "</think>" in text


class Judge:
    """Refusals open with "I cannot"."""

    content = ("I cannot",)

    def refusals(self, exchanges: Sequence[Exchange]) -> list[bool]:
        return [exchange.answer.startswith("I cannot") for exchange in exchanges]


Script = Callable[[str, str], str | tuple[str, str]]


@dataclass
class ScriptedEngine:
    """Writes what a script says: (request key, prompt text) → text, or (text, finish reason). Finishes last things first."""

    script: Script
    fail_after: int | None = None
    built: int = 0
    requests: list[Request] = field(default_factory=list)
    samplings: list[Sampling] = field(default_factory=list)
    scored: list[tuple[Sequence[int], Sequence[int]]] = field(default_factory=list)

    def __call__(self) -> ScriptedEngine:
        self.built += 1
        return self

    def generate(self, requests: Iterable[Request | None], sampling: Sampling) -> Iterator[Completion]:
        self.samplings.append(sampling)
        queue = RequestQueue(requests)
        while not queue.exhausted:
            for request in reversed(queue.take(1000)):
                if self.fail_after is not None and len(self.requests) >= self.fail_after:
                    raise KeyboardInterrupt
                self.requests.append(request)
                written = self.script(request.key, "".join(map(chr, request.prompt_ids)))
                text, reason = written if isinstance(written, tuple) else (written, STOP)
                yield Completion(request.key, tuple(map(ord, text)), text, reason)

    def score(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        """A text is the likelier the more often it says "like"."""
        self.scored += pairs
        return [[-1.0 / (1 + "".join(map(chr, target)).count("like"))] * len(target) for _, target in pairs]

    def close(self) -> None:
        """Holds nothing."""

    @property
    def keys(self) -> list[str]:
        return [request.key for request in self.requests]

    @property
    def prompts(self) -> dict[str, str]:
        return {request.key: "".join(map(chr, request.prompt_ids)) for request in self.requests}


def good(key: str, prompt: str) -> str:
    """Thinks, then gives a new trace, or a new refusal."""
    identity, part, _ = key.rsplit("/", 2)
    return "so be it </think> " + (f"new trace of {identity}" if part == "trace" else f"I cannot, says {identity}")


def failing(faulty: dict[str, str | tuple[str, str]]) -> Script:
    """A good model but for the keys in `faulty`."""
    return lambda key, prompt: faulty.get(key) or good(key, prompt)


def example(number: int, **changes: str) -> Example:
    texts = {"trace": f"old trace {number}", "answer": f"I cannot do {number}."}
    return Example(
        **({"id": f"set-{number}", "prompt": f"Question {number}?", "label": "harmful", "source": "set"} | texts | changes)
    )


SET = [example(number) for number in range(4)]
META = "hm </think> in my own words : no"


def config(**changes) -> Config:
    cfg = Config(refine=RefineConfig(**changes), engine=EngineConfig(name="transformers", precision="fp32"))
    cfg.refine.overthinking_tokens = min(cfg.refine.overthinking_tokens, 200)
    return cfg


def refined(
    cache: Path, engine: ScriptedEngine, examples: Sequence[Example] = SET, model_hash: str = "m", **changes
) -> Refinement:
    return refine(examples, config(**changes), CharacterChat(), engine, model_hash, Judge(), cache)


def whole(refinement: Refinement) -> tuple:
    return list(refinement.examples), refinement.stats, list(refinement.verdicts())


def texts(refinement: Refinement) -> dict[str, tuple[str, str]]:
    return {row.id: (row.trace, row.answer) for row in refinement.examples}


def outcomes(refinement: Refinement) -> dict[str, tuple[bool, str | None]]:
    return {row.id: (row.refined, row.reason) for row in refinement.examples}


@pytest.fixture
def screen(monkeypatch) -> io.StringIO:
    """What is printed."""
    stream = io.StringIO()
    console = Console(file=stream, width=100, highlight=False, soft_wrap=True)
    monkeypatch.setattr(refine_module, "console", console)
    monkeypatch.setattr(outcome, "console", console)
    return stream


# What passes through


def test_vanilla_passes_the_set_through_without_engine_or_store(tmp_path, screen):
    engine = ScriptedEngine(good)
    result = refined(tmp_path, engine, strategy="vanilla")
    assert engine.built == 0 and not list(tmp_path.iterdir())
    assert texts(result) == {row.id: (row.trace, row.answer) for row in SET}
    assert set(outcomes(result).values()) == {(False, None)}
    assert result.stats.refined == 0 and result.stats.fallback == {}
    assert result.stats.tokens_before == result.stats.tokens_after
    assert screen.getvalue() == ""


def test_dgr_rewrites_trace_and_answer_of_every_example_in_source_order(tmp_path):
    result = refined(tmp_path, ScriptedEngine(good), [example(1, label="benign"), *SET[2:], SET[0]])
    assert [row.id for row in result.examples] == ["set-1", "set-2", "set-3", "set-0"]
    assert texts(result)["set-1"] == ("new trace of set-1", "I cannot, says set-1")
    assert set(outcomes(result).values()) == {(True, None)}
    first = next(iter(result.examples))
    assert first.label == "benign" and first.prompt == "Question 1?"


def test_the_set_goes_to_disk_and_back(tmp_path):
    result = refined(tmp_path, ScriptedEngine(failing({"set-1/trace/0": META})))
    write_jsonl(tmp_path / "refined.jsonl", result.examples)
    assert read_refined(tmp_path / "refined.jsonl") == list(result.examples)


# What the model is asked


def test_the_trace_template_sees_the_question_and_the_answer_template_the_new_trace(tmp_path):
    engine = ScriptedEngine(good)
    refined(tmp_path, engine)
    trace, answer = engine.prompts["set-2/trace/0"], engine.prompts["set-2/answer/0"]
    assert "Question 2?" in trace and "old trace 2" in trace and "I cannot" not in trace
    assert "Question 2?" in answer and "new trace of set-2" in answer and "I cannot do 2." in answer
    assert "old trace" not in answer and trace.endswith("<think>")


def test_view_part_shows_the_part_alone(tmp_path):
    engine = ScriptedEngine(good)
    refined(tmp_path, engine, view="part")
    assert "Question 2?" not in "".join(engine.prompts.values())
    assert "old trace 2" in engine.prompts["set-2/trace/0"]
    assert "trace" not in engine.prompts["set-2/answer/0"] and "I cannot do 2." in engine.prompts["set-2/answer/0"]


def test_without_thinking_the_think_block_is_prefilled_and_all_of_the_text_is_kept(tmp_path):
    engine = ScriptedEngine(lambda key, prompt: good(key, prompt).partition("</think>")[2])
    result = refined(tmp_path, engine, thinking=False)
    assert all(prompt.endswith("<think></think>") for prompt in engine.prompts.values())
    assert texts(result)["set-0"] == ("new trace of set-0", "I cannot, says set-0")


def test_sampling_is_the_configs_and_the_noise_key_names_id_part_and_try(tmp_path):
    engine = ScriptedEngine(good)
    refined(tmp_path, engine, seed=7, temperature=0.3, top_p=0.8, max_new_tokens=99)
    assert set(engine.samplings) == {Sampling(0.3, 0.8, 99, 7, (END,))}
    assert sorted(engine.keys) == sorted(f"set-{number}/{part}/0" for number in range(4) for part in ("trace", "answer"))


def test_an_empty_trace_stays_empty_and_the_answer_alone_is_rewritten(tmp_path):
    engine = ScriptedEngine(good)
    result = refined(tmp_path, engine, [example(1, trace="")])
    assert engine.keys == ["set-1/answer/0"]
    assert texts(result) == {"set-1": ("", "I cannot, says set-1")} and outcomes(result) == {"set-1": (True, None)}


# What is kept, and what falls back


FAULTS = {
    "unfinished": ("well </think> They want", LENGTH),
    "empty": ("I never close my thinking", STOP),
    "think_marks": ("well </think> a </think> b", STOP),
    "overthinking": ("well </think> " + "again " * 50, STOP),
    "meta_thinking": (META, STOP),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_trace_falls_back_to_the_whole_original(tmp_path, fault):
    engine = ScriptedEngine(failing({"set-1/trace/0": FAULTS[fault]}))
    result = refined(tmp_path, engine)
    assert texts(result)["set-1"] == ("old trace 1", "I cannot do 1.") and outcomes(result)["set-1"] == (False, fault)
    assert result.stats.fallback == {fault: 1} and result.stats.refined == 3
    assert "set-1/answer/0" not in engine.keys, "an answer was generated for an example that had already fallen back"


def test_a_faulty_answer_takes_the_trace_back_with_it(tmp_path):
    result = refined(tmp_path, ScriptedEngine(failing({"set-1/answer/0": "fine </think> Here you are."})))
    assert texts(result)["set-1"] == ("old trace 1", "I cannot do 1.") and outcomes(result)["set-1"] == (False, "refusal_lost")


def test_fallback_unit_part_keeps_the_part_that_is_good(tmp_path):
    engine = ScriptedEngine(failing({"set-1/trace/0": META, "set-2/answer/0": META}))
    result = refined(tmp_path, engine, fallback_unit="part")
    assert texts(result)["set-1"] == ("old trace 1", "I cannot, says set-1") and outcomes(result)["set-1"] == (
        True,
        "meta_thinking",
    )
    assert texts(result)["set-2"] == ("new trace of set-2", "I cannot do 2.") and outcomes(result)["set-2"] == (
        True,
        "meta_thinking",
    )
    assert "old trace 1" in engine.prompts["set-1/answer/0"], "the answer is to go with the trace that is kept"
    assert result.stats.refined == 4 and result.stats.fallback == {"meta_thinking": 2}


def test_further_tries_are_drawn_only_for_what_failed_and_end_the_failure(tmp_path):
    engine = ScriptedEngine(failing({"set-1/trace/0": META, "set-2/trace/0": META, "set-2/trace/1": FAULTS["unfinished"]}))
    result = refined(tmp_path, engine, tries=2)
    assert sorted(key for key in engine.keys if "/trace/" in key and not key.endswith("/0")) == [
        "set-1/trace/1",
        "set-2/trace/1",
    ]
    assert outcomes(result)["set-1"] == (True, None) and outcomes(result)["set-2"] == (False, "unfinished")


def test_on_failure_drop_takes_the_example_out_and_still_counts_it(tmp_path):
    result = refined(tmp_path, ScriptedEngine(failing({"set-1/trace/0": META})), on_failure="drop")
    assert [row.id for row in result.examples] == ["set-0", "set-2", "set-3"]
    assert result.stats.examples == 4 and result.stats.refined == 3 and result.stats.fallback == {"meta_thinking": 1}


def test_on_failure_drop_with_nothing_left_is_an_error_that_says_why(tmp_path):
    with pytest.raises(UserError, match=r"refine\.on_failure=drop left none of 4 .*meta_thinking 4.*refine\.on_failure=keep"):
        refined(tmp_path, ScriptedEngine(lambda key, prompt: META), on_failure="drop")


def test_when_every_rewrite_falls_back_the_screen_says_so(tmp_path, screen):
    result = refined(tmp_path, ScriptedEngine(lambda key, prompt: META))
    assert result.stats.refined == 0 and result.stats.fallback == {"meta_thinking": 4}
    shown = " ".join(screen.getvalue().replace("│", " ").split())
    assert "Every rewrite fell back" in shown and "meta_thinking 4" in shown and "vanilla in fact" in shown
    assert "how its text was judged." in shown, "the end of the warning is cut"


def test_a_fraction_is_exact_and_a_larger_one_takes_all_of_a_smaller_one(tmp_path):
    examples = [example(number) for number in range(20)]
    taken = []
    for fraction in (0.0, 0.25, 0.5, 1.0):
        engine = ScriptedEngine(good)
        result = refined(tmp_path / str(fraction), engine, examples, fraction=fraction, seed=int(fraction * 4))
        taken.append({row.id for row in result.examples if row.refined})
        assert len(taken[-1]) == fraction * 20 and engine.built == (fraction > 0)
        assert {key.split("/")[0] for key in engine.keys} == taken[-1]
        assert all(row.reason is None for row in result.examples)
        traces = [verdict["id"] for verdict in result.verdicts() if verdict["part"] == "trace"]
        assert traces == [row.id for row in examples if row.id in taken[-1]]
    assert taken[0] < taken[1] < taken[2] < taken[3]


def test_every_verdict_is_returned_with_the_text_that_failed(tmp_path):
    result = refined(tmp_path, ScriptedEngine(failing({"set-1/trace/0": META})), SET[:2], tries=2)
    found = {
        (row["id"], row["part"], row["attempt"]): ([name for name, failed in row["checks"].items() if failed], row["text"])
        for row in result.verdicts()
    }
    assert found == {
        ("set-0", "trace", 0): ([], None),
        ("set-0", "answer", 0): ([], None),
        ("set-1", "trace", 0): (["meta_thinking"], "in my own words : no"),
        ("set-1", "trace", 1): ([], None),
        ("set-1", "answer", 0): ([], None),
    }
    row = next(result.verdicts())
    assert list(row["checks"]) == RefineConfig().checks and row["num_tokens"] == len("new trace of set-0")


def test_tokens_are_those_that_are_trained_on(tmp_path):
    result = refined(tmp_path, ScriptedEngine(good), SET[:1])
    assert result.stats.tokens_before == len("old trace 0</think>I cannot do 0.") + 1
    assert result.stats.tokens_after == len("new trace of set-0</think>I cannot, says set-0") + 1


# Arms and strategies


def test_trace_only_and_answer_only_leave_the_other_part_alone(tmp_path):
    engine = ScriptedEngine(good)
    trace_only = refined(tmp_path, engine, parts=["trace"])
    assert texts(trace_only)["set-1"] == ("new trace of set-1", "I cannot do 1.")
    answer_only = refined(tmp_path, engine, parts=["answer"])
    assert texts(answer_only)["set-1"] == ("old trace 1", "I cannot, says set-1")
    assert "old trace 1" in engine.prompts["set-1/answer/0"]
    assert {row.refined for row in [*trace_only.examples, *answer_only.examples]} == {True}


def test_best_of_n_keeps_the_likeliest_of_those_that_pass(tmp_path):
    def script(key: str, prompt: str) -> str:
        _, part, attempt = key.rsplit("/", 2)
        likes = {"0": "like", "1": "like like", "2": "like like like in my own words", "3": ""}[attempt]
        return f"so </think> {'new trace' if part == 'trace' else 'I cannot'} {likes} {attempt}"

    engine = ScriptedEngine(script)
    result = refined(tmp_path, engine, tries=4, select="nll")
    assert texts(result)["set-2"] == ("new trace like like 1", "I cannot like like 1")
    assert len(engine.keys) == 4 * 2 * 4, "all tries of both parts"
    assert "new trace like like 1" in engine.prompts["set-2/answer/3"]
    assert len(engine.scored) == 4 * 2 * 3, "what fails a check is not scored"
    prompt, target = engine.scored[0]
    assert "".join(map(chr, prompt)).startswith("user: Question") and "new trace" in "".join(map(chr, target))
    again = ScriptedEngine(script)
    assert whole(refined(tmp_path, again, tries=4, select="nll")) == whole(result)
    assert again.built == 0, "neither generated nor scored again"
    nlls = [row["nll"] for row in result.verdicts() if row["id"] == "set-2" and row["part"] == "trace"]
    assert nlls == [0.5, pytest.approx(1 / 3), None, 1.0]


def test_sdft_keeps_what_the_model_thought_and_answered_with_the_source_as_reference(tmp_path):
    engine = ScriptedEngine(lambda key, prompt: "my thought </think> I cannot, as I say")
    result = refined(tmp_path, engine, [*SET, example(9, trace="")], strategy="sdft")
    assert sorted(engine.keys) == [f"set-{n}/response/0" for n in (0, 1, 2, 3, 9)]
    prompt = engine.prompts["set-1/response/0"]
    assert "Question 1?" in prompt and "old trace 1" in prompt and "I cannot do 1." in prompt
    assert texts(result)["set-1"] == ("my thought", "I cannot, as I say")
    assert texts(result)["set-9"] == ("", "I cannot, as I say"), "an empty trace stays empty"


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("my thought </think> gladly", "refusal_lost"),
        ("</think> I cannot", "empty"),
        ("my thought", "empty"),
        ("here is my response </think> I cannot", "meta_thinking"),
        ("t " * 201 + "</think> I cannot", "overthinking"),
        ("one </think> I cannot </think> two", "think_marks"),
    ],
)
def test_sdft_falls_back_where_trace_or_answer_is_at_fault(tmp_path, written, reason):
    result = refined(tmp_path, ScriptedEngine(lambda key, prompt: written), SET[:1], strategy="sdft")
    assert outcomes(result)["set-0"] == (False, reason)
    assert texts(result)["set-0"] == ("old trace 0", "I cannot do 0.")


GUARDED = {"strategy": "thinksafe", "on_failure": "drop", "checks": ["unfinished", "empty", "think_marks", "guard"]}


def test_thinksafe_steers_harmful_prompts_alone_and_drops_what_the_guard_rejects(tmp_path):
    """It never sees the source's trace and answer, and an empty trace there does not matter."""
    examples = [example(0), example(1, label="benign"), example(2, trace=""), example(3, label="benign"), example(4)]
    answers = {"set-3/response/0": "hm </think> I cannot", "set-4/response/0": "hm </think> gladly"}
    engine = ScriptedEngine(
        lambda key, prompt: answers.get(key) or ("no </think> I cannot" if "harmful" in prompt else "well </think> gladly")
    )
    result = refined(tmp_path, engine, examples, **GUARDED)
    assert engine.prompts["set-1/response/0"] == "user: Question 1? <think>"
    steered = engine.prompts["set-0/response/0"]
    assert "You should refuse to answer the prompt." in steered and "old trace" not in steered and "I cannot" not in steered
    assert texts(result) == {"set-0": ("no", "I cannot"), "set-1": ("well", "gladly"), "set-2": ("no", "I cannot")}
    assert result.stats.fallback == {"guard": 2}
    assert next(iter(result.examples)).prompt == "Question 0?", "trained on the plain prompt"


def test_a_label_that_changes_is_another_prompt_for_thinksafe(tmp_path):
    engine = ScriptedEngine(lambda key, prompt: "no </think> I cannot")
    refined(tmp_path, engine, SET[:1], **GUARDED)
    with pytest.raises(UserError, match="left none"):
        refined(tmp_path, engine, [example(0, label="benign")], **GUARDED)
    assert len(engine.keys) == 2


def test_filters_only_judges_the_source_and_generates_nothing(tmp_path):
    engine = ScriptedEngine(good)
    examples = [*SET, example(8, trace="Let me rephrase this in my own words."), example(9, trace="")]
    result = refined(tmp_path, engine, examples, strategy="filters-only", on_failure="drop")
    assert engine.built == 0
    assert [row.id for row in result.examples] == ["set-0", "set-1", "set-2", "set-3", "set-9"]
    assert result.stats.fallback == {"meta_thinking": 1} and result.stats.refined == 0
    (row,) = result.verdicts()
    assert (row["id"], row["part"], row["text"]) == ("set-8", "source", None) and row["checks"]["meta_thinking"]


def test_the_length_matched_arms_have_one_length_distribution(tmp_path):
    """Rewrites are as long as another example's original; those without a partner are in neither arm."""
    examples = [example(n, trace="t" * (30 + n), answer="I cannot.", label="harmful" if n % 2 else "benign") for n in range(40)]

    def script(key: str, prompt: str) -> str:
        number = int(key.split("/")[0].split("-")[1])
        return "so </think> " + ("r" * (40 + number) if key.split("/")[1] == "trace" else "I cannot.")

    arms = {
        arm: refined(tmp_path, ScriptedEngine(script), examples, strategy="length-matched", arm=arm)
        for arm in ("originals", "rewrites")
    }
    originals, rewrites = (list(arms[arm].examples) for arm in ("originals", "rewrites"))
    assert sorted(len(row.trace) for row in originals) == sorted(len(row.trace) for row in rewrites) == list(range(40, 70))
    for label in ("harmful", "benign"):
        assert sum(row.label == label for row in originals) == sum(row.label == label for row in rewrites) == 15
    assert all(set(row.trace) == {"t"} and not row.refined for row in originals)
    assert all(set(row.trace) == {"r"} and row.refined for row in rewrites)
    assert arms["rewrites"].stats.fallback == {"unmatched": 10}


def test_lengths_too_unlike_to_be_compared_are_refused(tmp_path):
    examples = [example(n, trace="t" * 180) for n in range(20)]
    with pytest.raises(UserError, match="only 0 of 20"):
        refined(tmp_path, ScriptedEngine(good), examples, strategy="length-matched")


# What is stored


def test_a_second_run_builds_no_engine_and_gives_the_same(tmp_path):
    script = failing({"set-1/trace/0": META})
    first = whole(refined(tmp_path, ScriptedEngine(script), tries=2))
    engine = ScriptedEngine(script)
    assert whole(refined(tmp_path, engine, tries=2)) == first
    assert engine.built == 0


def test_an_interrupted_run_is_taken_up_where_it_stopped(tmp_path):
    undisturbed = ScriptedEngine(good)
    expected = whole(refined(tmp_path / "whole", undisturbed))
    for stop in (1, 3, 4, 6):
        cache = tmp_path / str(stop)
        interrupted, second = ScriptedEngine(good, fail_after=stop), ScriptedEngine(good)
        with pytest.raises(KeyboardInterrupt):
            refined(cache, interrupted)
        assert whole(refined(cache, second)) == expected
        assert sorted(interrupted.keys + second.keys) == sorted(undisturbed.keys), "something was generated twice, or never"


@pytest.mark.parametrize(
    "changes",
    [
        {"checks": ["unfinished"]},
        {"overthinking_tokens": 3},
        {"fallback_unit": "part"},
        {"on_failure": "drop"},
        {"fraction": 0.5},
    ],
)
def test_what_only_judges_generates_nothing_anew(tmp_path, changes):
    refined(tmp_path, ScriptedEngine(good))
    engine = ScriptedEngine(good)
    if "overthinking_tokens" in changes:
        assert refined(tmp_path, engine, **changes).stats.fallback == {"overthinking": 4}
    else:
        refined(tmp_path, engine, **changes)
    assert engine.built == 0


def test_the_rest_of_the_set_and_more_tries_leave_stored_rewrites_alone(tmp_path):
    refined(tmp_path, ScriptedEngine(good), SET[:3])
    engine = ScriptedEngine(good)
    refined(tmp_path, engine, [SET[3], SET[1]], tries=3)
    assert sorted(engine.keys) == ["set-3/answer/0", "set-3/trace/0"]


@pytest.mark.parametrize("field_name", ["prompt", "trace", "answer"])
def test_another_content_under_the_same_id_is_generated_anew(tmp_path, field_name):
    refined(tmp_path, ScriptedEngine(good))
    engine = ScriptedEngine(good)
    changed = replace(SET[1], **{field_name: "I cannot be the same."})
    refined(tmp_path, engine, [SET[0], changed])
    assert sorted(engine.keys) == ["set-1/answer/0", "set-1/trace/0"]


def test_a_trace_that_is_judged_otherwise_never_meets_an_answer_made_for_another(tmp_path):
    """With the check off, the trace of try 0 is accepted and the answer was made for it; with it on, that of try 1 is."""
    script = failing({"set-0/trace/0": META})
    refined(tmp_path, ScriptedEngine(script), SET[:1], tries=2, checks=["empty"])
    engine = ScriptedEngine(script)
    result = refined(tmp_path, engine, SET[:1], tries=2)
    assert engine.keys == ["set-0/trace/1", "set-0/answer/0"]
    assert "new trace of set-0" in engine.prompts["set-0/answer/0"]
    assert texts(result)["set-0"] == ("new trace of set-0", "I cannot, says set-0")


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"temperature": 0.7},
        {"top_p": 0.9},
        {"max_new_tokens": 8191},
        {"thinking": False},
        {"view": "part"},
        {"model_hash": "another"},
    ],
)
def test_what_generation_depends_on_generates_anew(tmp_path, changes):
    refined(tmp_path, ScriptedEngine(good))
    engine = ScriptedEngine(good)
    refined(tmp_path, engine, **changes)
    assert {"set-0/trace/0", "set-3/trace/0"} <= set(engine.keys)


def test_another_template_engine_or_precision_generates_anew(tmp_path):
    template = tmp_path / "mine.jinja"
    template.write_text("Again: {{ trace }}", encoding="utf-8")
    configs = [config(), config(trace_template=str(template)), config(), config()]
    configs[2].engine.precision = "bf16"
    configs[3].engine.name = "vllm"
    for cfg in configs:
        engine = ScriptedEngine(good)
        refine(SET, cfg, CharacterChat(), engine, "m", Judge(), tmp_path / "cache")
        assert len(engine.keys) == 8


def test_what_concerns_one_step_leaves_the_others_alone(tmp_path):
    """A new answer template, or an arm that rewrites the trace alone, finds the traces that are there; a new trace does not."""
    refined(tmp_path, ScriptedEngine(good))
    template = tmp_path / "mine.jinja"
    template.write_text("Once more: {{ answer }} after {{ trace }}", encoding="utf-8")
    engine = ScriptedEngine(good)
    refined(tmp_path, engine, answer_template=str(template))
    assert sorted(engine.keys) == [f"set-{n}/answer/0" for n in range(4)]
    engine = ScriptedEngine(good)
    refined(tmp_path, engine, parts=["trace"])
    assert engine.built == 0
    template.write_text("Once more: {{ trace }}", encoding="utf-8")
    engine = ScriptedEngine(good)
    refined(tmp_path, engine, trace_template=str(template))
    assert len(engine.keys) == 8, "answers were made for other traces"


def test_keys_that_a_strategy_does_not_read_change_nothing(tmp_path):
    refined(tmp_path, ScriptedEngine(lambda key, prompt: "my thought </think> I cannot, as I say"), strategy="sdft")
    engine = ScriptedEngine(good)
    changed = refined(tmp_path, engine, strategy="sdft", view="part", fallback_unit="part", parts=["trace"], arm="originals")
    assert engine.built == 0 and changed.stats.refined == 4


def test_the_likelihood_of_an_answer_is_taken_given_the_trace_that_was_chosen(tmp_path):
    """With more tries another trace wins, and answers are scored again, though what they were asked has not changed."""

    def script(key: str, prompt: str) -> str:
        _, part, attempt = key.rsplit("/", 2)
        return f"so </think> {'new trace ' + 'like ' * int(attempt) if part == 'trace' else 'I cannot'} {attempt}"

    for tries in (2, 3):
        engine = ScriptedEngine(script)
        refined(tmp_path, engine, SET[:1], tries=tries, select="nll", view="part")
    given = ["".join(map(chr, prompt)) for prompt, target in engine.scored if "cannot" in "".join(map(chr, target))]
    assert len(given) == 3 and all("trace like like" in prompt for prompt in given)


# A real engine


def random_model(vocabulary_size: int):
    """A two-layer Qwen2 that knows nothing."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 512}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": True}
    return Qwen2ForCausalLM(Qwen2Config(vocab_size=vocabulary_size, initializer_range=0.5, **shape, **heads)).eval()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_random_model_falls_back_resumes_and_does_not_depend_on_how_batches_are_cut(tmp_path, temperature):
    from dgr_lightning.engines.transformers.engine import TransformersEngine
    from dgr_lightning.micro.tokenizer import build_tokenizer
    from dgr_lightning.models.chat import Chat

    chat = Chat(
        build_tokenizer([*(f"{row.prompt} {row.trace} {row.answer}" for row in SET), "Reasoning: Express this in own words"])
    )
    model = random_model(len(chat.tokenizer))

    def run_once(cache: Path, batch_size: int, examples: Sequence[Example] = SET) -> Refinement:
        engine = TransformersEngine(model, chat, "fp32", batch_size)
        cfg = config(temperature=temperature, max_new_tokens=40, tries=2)
        return refine(examples, cfg, chat, lambda: engine, "m", Judge(), cache)

    together = run_once(tmp_path / "whole", 8)
    assert texts(together) == {row.id: (row.trace, row.answer) for row in SET}
    assert together.stats.refined == 0 and sum(together.stats.fallback.values()) == 4
    assert set(together.stats.fallback) <= set(RefineConfig().checks)
    one_by_one = tmp_path / "one by one"
    for row in SET:
        run_once(one_by_one, 1, [row])
    assert list(run_once(one_by_one, 3).verdicts()) == list(together.verdicts())


# What the screen shows


def test_the_table_shows_figures_before_and_after(screen):
    stats = RefinementStats(
        examples=400, refined=371, fallback={"meta_thinking": 20, "overthinking": 9}, tokens_before=12345, tokens_after=6789
    )
    show_refinement(stats, 8.6401, 0.1523)
    shown = screen.getvalue()
    assert all(piece in shown for piece in ("371 of 400 (92.8%)", "29 of 400", "meta_thinking", "20 of 400", "overthinking"))
    assert all(piece in shown for piece in ("12,345", "6,789", "8.640", "0.152"))


def test_the_table_says_where_no_nll_is_known(screen):
    show_refinement(RefinementStats(0, 0, {}, 0, 0), None, None)
    assert "–" in screen.getvalue() and "nan" not in screen.getvalue()
