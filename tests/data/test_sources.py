"""Loading a source set: which rows are kept, a draw that is stable, and a hash of the content."""

import shutil
from collections import Counter
from dataclasses import fields, replace
from itertools import pairwise

import pytest

from dgr_lightning.config import BenignConfig, DataConfig, FieldsConfig
from dgr_lightning.data import source_rows
from dgr_lightning.data.sources import data_hash, load_examples
from dgr_lightning.errors import UserError
from dgr_lightning.example import Example, RefinedExample
from dgr_lightning.files import write_jsonl
from dgr_lightning.refinement.dataset import write_dataset
from tests.helpers.source_sets import plain_rows, source_set

# --- Keep and first -----------------------------------------------------------------------------------------------------------


def test_safechain_rows_with_labels_of_their_own_and_the_first_of_a_kind(tmp_path):
    kinds = ["vanilla_benign", "vanilla_harmful", "adversarial_harmful", "vanilla_harmful", "vanilla_harmful"]
    rows = [{"instruction": f"p{i}", "label": kind, "response": "t</think>a"} for i, kind in enumerate(kinds)]
    columns = FieldsConfig(
        prompt="instruction",
        response="response",
        label="label",
        labels={"vanilla_harmful": "harmful", "vanilla_benign": "benign"},
    )
    small = source_set(tmp_path, rows, fields=columns, keep={"label": "vanilla_harmful"}, first=2)
    assert [example.id for example in load_examples(small, seed=1).examples] == ["set-1", "set-3"]
    whole = load_examples(replace(small, keep={"label": None}, first=None), seed=1)
    assert whole.rejected == {"unknown_label": 1}
    assert [example.label for example in whole.examples] == ["harmful"] * 3


def test_keep_names_the_columns_or_the_values_there_are(tmp_path):
    rows = plain_rows(2, "harmful") + plain_rows(1, "benign")
    with pytest.raises(UserError, match=r"data\.keep\.label=bad: no row.*Found: harmful \(2\), benign \(1\)"):
        load_examples(source_set(tmp_path, rows, keep={"label": "bad"}), seed=1)
    with pytest.raises(UserError, match=r"data\.keep\.kind: no row has a column 'kind'.*Set data\.keep\.kind=null to drop"):
        load_examples(source_set(tmp_path, rows, keep={"kind": "x"}), seed=1)


# --- The draw -----------------------------------------------------------------------------------------------------------------


def ids(data: DataConfig, seed: int = 1) -> list[str]:
    return [example.id for example in load_examples(data, seed).examples]


def test_the_draw_is_seeded_grows_with_the_limit_and_keeps_source_order(tmp_path):
    data = source_set(tmp_path, plain_rows(50))
    everything = [f"set-{index}" for index in range(50)]
    assert ids(data) == everything
    draws = [ids(replace(data, limit=limit)) for limit in (1, 7, 20, 49)]
    assert [len(draw) for draw in draws] == [1, 7, 20, 49]
    for smaller, larger in pairwise(draws):
        assert set(smaller) < set(larger)
    assert all(draw == sorted(draw, key=everything.index) for draw in draws)
    assert ids(replace(data, limit=20)) == draws[2]
    assert ids(replace(data, limit=20), seed=2) != draws[2]


def test_rejected_rows_are_replaced_from_the_rest_of_the_draw(tmp_path):
    whole = source_set(tmp_path, plain_rows(20), name="whole")
    chosen = ids(replace(whole, name="set", limit=10))
    broken = int(chosen[3].removeprefix("set-"))
    rows = [row | ({"answer": ""} if index == broken else {}) for index, row in enumerate(plain_rows(20))]
    loaded = load_examples(source_set(tmp_path, rows, limit=10), seed=1)
    now = [example.id for example in loaded.examples]
    assert loaded.rejected == {"empty_answer": 1}
    assert len(now) == 10 and set(chosen) - set(now) == {chosen[3]}


def test_a_limit_above_the_set_takes_all_of_it_and_says_so(tmp_path, capsys):
    assert len(ids(source_set(tmp_path, plain_rows(5), limit=9))) == 5
    assert "data.limit=9" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("limit", "ratio", "harmful", "benign"),
    [(40, 0.25, 30, 10), (10, 0.0, 10, 0), (None, 0.25, 60, 20), (None, 0.5, 60, 60), (None, 0.0, 60, 0), (1000, 0.25, 60, 20)],
)
def test_the_benign_share_is_part_of_the_limit(tmp_path, limit, ratio, harmful, benign):
    data = source_set(tmp_path, plain_rows(60, "harmful") + plain_rows(70, "benign", 60), limit=limit, benign_ratio=ratio)
    counts = Counter(example.label for example in load_examples(data, seed=1).examples)
    assert (counts["harmful"], counts["benign"]) == (harmful, benign)


def test_a_larger_limit_holds_both_kinds_of_the_smaller_draw(tmp_path):
    data = source_set(tmp_path, plain_rows(60, "harmful") + plain_rows(60, "benign", 60), benign_ratio=0.3)
    for limit in range(1, 40):
        assert set(ids(replace(data, limit=limit))) < set(ids(replace(data, limit=limit + 1)))


def test_left_out_benign_rows_are_mentioned(tmp_path, capsys):
    ids(source_set(tmp_path, plain_rows(3, "harmful") + plain_rows(2, "benign", 3)))
    assert "2 rows labelled benign are left out (data.benign_ratio=0)" in capsys.readouterr().out


def test_a_benign_share_that_cannot_be_met_is_refused_with_the_counts(tmp_path):
    data = source_set(tmp_path, plain_rows(60, "harmful") + plain_rows(5, "benign", 60), limit=40, benign_ratio=0.25)
    with pytest.raises(UserError, match=r"benign_ratio=0\.25 of 40 examples needs 10 benign.*has 5 and 60 others") as error:
        load_examples(data, seed=1)
    proposed = int(str(error.value).split("data.limit=")[1].split(",")[0])
    assert len(ids(replace(data, limit=proposed))) == proposed
    none = source_set(tmp_path, plain_rows(6), benign_ratio=0.5)
    with pytest.raises(UserError, match=r"has 0 and 6 others\. Set data\.benign_ratio=0, or data\.benign\.path=<file"):
        load_examples(none, seed=1)


def test_a_set_of_benign_rows_alone_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"all 3 accepted rows are labelled benign"):
        load_examples(source_set(tmp_path, plain_rows(3, "benign")), seed=1)


def test_benign_rows_from_a_file_of_their_own(tmp_path):
    other = source_set(
        tmp_path,
        [{"q": f"b{index}", "response": "<think>t</think>Sure."} for index in range(9)] + [{"q": "x", "response": "y"}],
        name="other",
    )
    benign = BenignConfig(path=other.path, fields=FieldsConfig(prompt="q"))
    loaded = load_examples(source_set(tmp_path, plain_rows(12), limit=8, benign_ratio=0.25, benign=benign), seed=1)
    assert [example.label for example in loaded.examples] == ["harmful"] * 6 + ["benign"] * 2
    assert all(example.id.startswith("set-benign-") for example in loaded.examples[6:])
    assert loaded.rejected == {"no_close": 1}


def test_benign_rows_may_be_other_rows_of_the_set_itself(tmp_path):
    kinds = ["vanilla_benign", "vanilla_harmful", "adversarial_benign"]
    rows = [{"instruction": f"p{i}", "label": kinds[i % 3], "response": "t</think>a"} for i in range(30)]
    columns = FieldsConfig(prompt="instruction", response="response", labels={"vanilla_benign": "benign"})
    benign = BenignConfig(hub_id="owner/set", keep={"label": "vanilla_benign"}, fields=columns)
    data = source_set(
        tmp_path,
        rows,
        hub_id="owner/set",
        keep={"label": "vanilla_harmful"},
        fields=replace(columns, label="label", labels={"vanilla_harmful": "harmful"}),
        limit=8,
        benign_ratio=0.25,
        benign=benign,
    )
    examples = load_examples(data, seed=1).examples
    assert Counter(example.label for example in examples) == {"harmful": 6, "benign": 2}
    assert {int(example.id.rpartition("-")[2]) % 3 for example in examples[6:]} == {0}
    data.benign.keep = {"label": "vanilla"}
    with pytest.raises(UserError, match=r"data\.benign\.keep\.label=vanilla: no row.*vanilla_benign \(10\)"):
        load_examples(data, seed=1)


# --- What a run trained on ----------------------------------------------------------------------------------------------------

REFINED = [
    RefinedExample(f"star1-{i}", f"p{i}", "" if i == 2 else f"t{i}", f"a{i}", label, source, i == 1, None)
    for i, (label, source) in enumerate(
        [("harmful", "star1"), ("safe_completion", "star1"), ("benign", "star1-benign"), ("harmful", "star1")]
    )
]


def run_directory(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    write_jsonl(run / "refined.jsonl", REFINED)
    (run / "config.yaml").write_text("seed: 1\n")
    return run


def test_a_refined_set_is_taken_with_everything_in_it_from_file_directory_or_dataset(tmp_path):
    run = run_directory(tmp_path)
    write_dataset(run / "refined.jsonl", run / "dataset", "a card")
    wanted = [Example(*(getattr(example, field.name) for field in fields(Example))) for example in REFINED]
    for path in (run, run / "refined.jsonl", run / "dataset", run / "dataset" / "data"):
        assert load_examples(DataConfig(path=str(path)), seed=1).examples == wanted
    hashes = [data_hash(DataConfig(path=str(path))) for path in (run, run / "refined.jsonl")]
    (run / "config.yaml").write_text("seed: 2\n")
    assert hashes == [data_hash(DataConfig(path=str(run)))] * 2
    (run / "dataset" / "README.md").write_text("another card")
    assert data_hash(DataConfig(path=str(run / "dataset"))) == data_hash(DataConfig(path=str(run / "dataset" / "data")))


def test_of_a_refined_set_some_may_be_drawn_or_kept(tmp_path):
    run = run_directory(tmp_path)
    assert len(load_examples(DataConfig(path=str(run), limit=3), seed=1).examples) == 3
    harmful = load_examples(DataConfig(path=str(run), keep={"label": "harmful"}), seed=1).examples
    assert [example.id for example in harmful] == ["star1-0", "star1-3"]
    mixed = load_examples(DataConfig(path=str(run), benign_ratio=0.5, limit=2), seed=1).examples
    assert Counter(example.label == "benign" for example in mixed) == {True: 1, False: 1}


def test_shards_of_several_splits_are_named(tmp_path):
    run = run_directory(tmp_path)
    write_dataset(run / "refined.jsonl", run / "dataset", "a card")
    (shard,) = (run / "dataset" / "data").iterdir()
    shutil.copy(shard, shard.with_name("test-00000-of-00001.parquet"))
    with pytest.raises(UserError, match=r"contains several splits \(test, train\)"):
        load_examples(DataConfig(path=str(run / "dataset")), seed=1)


# --- The miniature's sets -----------------------------------------------------------------------------------------------------


def test_miniature_sets_go_through_the_same_field_maps():
    direct = FieldsConfig(prompt="prompt", trace="trace", answer="refusal", answer_after="Answer: ", label="label")
    act = FieldsConfig(prompt="instruction", response="response", label="label")
    for recipe, columns in (("micro-directrefusal", direct), ("micro-r1act", act)):
        data = DataConfig(name=recipe, recipe=recipe, limit=40, benign_ratio=0.25, fields=columns)
        loaded = load_examples(data, seed=1)
        assert Counter(example.label for example in loaded.examples) == {"harmful": 30, "benign": 10}
        assert not loaded.rejected
        assert not any("Answer:" in example.answer for example in loaded.examples)


# --- Content hash -------------------------------------------------------------------------------------------------------------


def test_content_follows_the_bytes_and_not_the_path(tmp_path):
    first, second = source_set(tmp_path, plain_rows(3), name="one"), source_set(tmp_path, plain_rows(3), name="two")
    other = source_set(tmp_path, plain_rows(4), name="three")
    assert data_hash(first) == data_hash(second) != data_hash(other)
    benign = replace(first, benign=BenignConfig(path=other.path))
    assert data_hash(benign) == data_hash(first)
    assert data_hash(replace(benign, benign_ratio=0.5)) != data_hash(first)


def test_content_of_hub_sets_and_recipes(monkeypatch):
    hub = DataConfig(name="a", hub_id="owner/set", revision="1")
    assert data_hash(hub) == data_hash(replace(hub, name="b", limit=3))
    assert data_hash(hub) != data_hash(replace(hub, revision="2"))
    rows = plain_rows(2)
    monkeypatch.setattr(source_rows, "dataset_rows", lambda *_, **__: rows)
    unpinned = data_hash(replace(hub, revision=None))
    rows[0]["answer"] = "another"
    assert data_hash(replace(hub, revision=None)) != unpinned
    recipes = {data_hash(DataConfig(recipe=recipe)) for recipe in ("micro-directrefusal", "micro-r1act")}
    assert len(recipes) == 2


@pytest.mark.parametrize("what", [data_hash, lambda data: load_examples(data, 1)])
def test_a_path_that_is_not_there_is_named(what):
    with pytest.raises(UserError, match=r"data\.path=nowhere\.jsonl: no such file"):
        what(DataConfig(path="nowhere.jsonl"))
