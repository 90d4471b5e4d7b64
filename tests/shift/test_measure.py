"""The shifts of a set: which examples are measured before and after refinement, and what is not measured twice."""

from collections.abc import Sequence

from dgr_lightning.config import Config
from dgr_lightning.example import Example, RefinedExample
from dgr_lightning.files import read_jsonl, write_jsonl
from dgr_lightning.micro.tokenizer import build_tokenizer
from dgr_lightning.models.chat import Chat
from dgr_lightning.shift.measure import mean_nll, measure_set
from tests.helpers.fake_model import FakeModel


class FixedEngine:
    """Gives every token the same probability."""

    num_scored = 0

    def score(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        self.num_scored += len(pairs)
        return [[-2.0] * len(target) for _, target in pairs]


def test_the_same_examples_are_measured_before_and_after_and_an_unchanged_set_once(tmp_path):
    sources = [Example(f"x-{i}", "so it", "so", "sure", "harmful", "x") for i in range(20)]
    write_jsonl(tmp_path / "sources.jsonl", sources)
    refined = [RefinedExample.of(example, refined=True) for example in sources[5:]]
    write_jsonl(tmp_path / "refined.jsonl", refined)
    cfg = Config()
    cfg.shift.limit = 8
    engine = FixedEngine()
    target = FakeModel(engine, Chat(build_tokenizer(["so it sure"])))
    arguments = (tmp_path / "sources.jsonl", tmp_path / "refined.jsonl", tmp_path, cfg, target)
    record = measure_set(*arguments, changed=True)
    before, after = ([row["id"] for row in read_jsonl(tmp_path / f"shift-{when}.jsonl")] for when in ("before", "after"))
    assert len(before) == 8 and after == [id_ for id_ in before if id_ in {example.id for example in refined}]
    assert mean_nll(record["before"]) == mean_nll(record["after"]) == 2.0
    assert record["similarity"] is None and record["kl"] is None
    engine.num_scored = 0
    same = measure_set(*arguments, changed=False)
    assert same["after"] == same["before"] and engine.num_scored == 8


def test_a_set_without_examples_has_no_mean():
    assert mean_nll({"both": None}) is None
