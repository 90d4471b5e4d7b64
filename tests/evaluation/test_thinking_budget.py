"""Budget forcing: an open thought is closed after its budget, the model goes on behind it, and the output counts as capped."""

import pytest

from dgr_lightning.engines.engine import LENGTH, STOP, Completion
from dgr_lightning.engines.request_queue import RequestQueue
from dgr_lightning.evaluation.evaluate import evaluate_model
from dgr_lightning.files import read_jsonl
from dgr_lightning.scoring.judges.keywords import KeywordJudge
from dgr_lightning.scoring.panel import Panel
from tests.helpers.evaluations import BOXED
from tests.helpers.fake_model import FakeModel


class Writer:
    """Writes a text word by word after whatever it was asked, goes on where a prompt ends inside it, and keeps to limits."""

    dies_at = None

    def __init__(self, chat, text):
        self.chat, self.words = chat, chat.tokenizer.encode(text, add_special_tokens=False)
        self.asked = []

    def generate(self, requests, sampling):
        for request in RequestQueue(requests).take(1000):
            if self.dies_at and request.key.endswith(self.dies_at):
                raise RuntimeError("killed")
            prompt = self.chat.decode(request.prompt_ids)
            self.asked.append((request.key, request.max_new_tokens, prompt.partition("<think>")[2].strip()))
            done = prompt.partition("<think>")[2].split()
            words = self.words[len(done) :] if "</think>" not in done else self.answer
            limit = request.max_new_tokens or sampling.max_new_tokens
            ids = tuple(words[:limit])
            yield Completion(request.key, ids, self.chat.decode(ids), STOP if len(words) <= limit else LENGTH)

    @property
    def answer(self):
        return self.chat.tokenizer.encode(f"so {BOXED.format(0)}", add_special_tokens=False)


@pytest.fixture
def measured(chat, cfg, tmp_path):
    """Returns a function that evaluates one sum with a text, and returns its line, its estimates and what was asked."""

    def run(text, thinking=4, tokens=8):
        cfg.evaluation.tasks, cfg.evaluation.limit = ["gsm8k"], 1
        cfg.evaluation.path = {"gsm8k": cfg.evaluation.path["gsm8k"]}
        cfg.evaluation.thinking_tokens, cfg.evaluation.max_new_tokens = thinking, tokens
        writer = Writer(chat, text)
        place = {"judges": Panel(KeywordJudge()), "out_dir": tmp_path / "out", "store_root": tmp_path / "stored"}
        estimates = evaluate_model(FakeModel(writer, chat), cfg, **place)
        (row,) = read_jsonl(tmp_path / "out" / "gsm8k.jsonl")
        return row, {name: value.value for name, value in estimates["gsm8k"].items()}, writer.asked

    return run


def test_an_open_thought_is_closed_and_counts_as_capped_though_the_model_ended_the_output(measured):
    row, rates, asked = measured("so it so it so it so it so it")
    key = row["id"] + "/0"
    assert asked == [(key, 4, ""), (key + "/answer", 4, "so it so it </think>")]
    assert row["output"].split() == ["so", "it", "so", "it", "</think>", "so", BOXED.format(0)]
    assert (row["num_tokens"], row["finish_reason"], row["thinking_capped"]) == (6, STOP, True)
    assert rates["cap_hit_rate"] == 1 and rates["early_stop_rate"] == 0 and rates["missing_thinking_rate"] == 0


def test_an_output_that_ends_in_time_is_asked_for_once(measured):
    row, rates, asked = measured("so </think> it")
    assert len(asked) == 1 and row["output"] == "so </think> it" and "thinking_capped" not in row
    assert rates["cap_hit_rate"] == 0


def test_an_answer_that_has_begun_goes_on_with_the_rest_of_the_budget(measured):
    row, rates, asked = measured("so </think> it so it so")
    assert [limit for _, limit, _ in asked] == [4, 4] and asked[1][2] == "so </think> it so"
    assert row["output"].split()[:4] == ["so", "</think>", "it", "so"] and "thinking_capped" not in row
    assert (row["num_tokens"], row["finish_reason"], rates["cap_hit_rate"]) == (6, STOP, 0)


def test_the_answer_may_run_into_the_whole_budget(measured):
    row, rates, _ = measured("so it so it so", thinking=4, tokens=5)
    assert (row["num_tokens"], row["finish_reason"], row["thinking_capped"]) == (5, LENGTH, True)
    assert rates["cap_hit_rate"] == 1


def test_what_is_stored_is_not_generated_again_and_another_budget_is(measured):
    text = "so it so it so it so it so it"
    first, _, _ = measured(text)
    again, _, asked = measured(text)
    assert again == first and asked == []
    _, _, asked = measured(text, thinking=5)
    assert [limit for _, limit, _ in asked] == [5, 3]


def test_an_evaluation_that_was_killed_between_the_two_goes_on_with_the_second(measured, monkeypatch):
    text = "so it so it so it so it so it"
    monkeypatch.setattr(Writer, "dies_at", "/answer")
    with pytest.raises(RuntimeError, match="killed"):
        measured(text)
    monkeypatch.setattr(Writer, "dies_at", None)
    row, _, asked = measured(text)
    assert [key for key, _, _ in asked] == [row["id"] + "/0/answer"] and row["thinking_capped"]
