"""Safety sets into examples: every published format, every reason to reject, and a draw that is stable."""

import json
import os
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from dgr_lightning.config import BenignConfig, DataConfig, FieldsConfig
from dgr_lightning.data import sources
from dgr_lightning.data.rows import NUM_SHOWN, REASONS, Rejected, split_response
from dgr_lightning.data.sources import data_hash, load_examples
from dgr_lightning.errors import UserError

EOS = "<｜end▁of▁sentence｜>"


def source(tmp_path: Path, rows: list[dict], *, name: str = "set", **settings) -> DataConfig:
    path = tmp_path / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return DataConfig(name=name, path=str(path), **settings)


def plain(count: int, label: str | None = None, start: int = 0) -> list[dict]:
    labels = {} if label is None else {"label": label}
    return [
        {"prompt": f"p{index}", "trace": f"t{index}", "answer": f"a{index}", **labels} for index in range(start, start + count)
    ]


# --- Formats --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "response",
    [
        "<think>\nwhy not\n</think>\n\nNo.",
        "<think>why not</think>No.",
        "why not\n</think>\n\nNo.",
        "\n<think>\nwhy not\n</think>\n\nNo." + EOS,
        "why not</think>No.<|im_end|>\n",
        "why not</think>No.<|im_end|><|endoftext|>",
        "why not</think>No. <|eot_id|>",
    ],
)
def test_a_response_splits_with_or_without_opening_mark_and_end_mark(response):
    assert split_response(response) == ("why not", "No.")


@pytest.mark.parametrize("response", ["<think>\n\n</think>\n\nNo.", "</think>No.", "<think></think>No." + EOS])
def test_an_empty_trace_is_valid(response):
    assert split_response(response) == ("", "No.")


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ("just an answer", "no_close"),
        ("<think> never closed", "no_close"),
        ("<think>a</think>b</think>c", "several_traces"),
        ("<think>a</think>b<think>c</think>d", "several_traces"),
        ("<think>a<think>b</think>c", "think_mark_inside"),
        ("before <think>a</think>b", "think_mark_inside"),
        ("<think>a</think>b <think>", "think_mark_inside"),
        ("<think>a</think>\n\n", "empty_answer"),
        ("<think>a</think>" + EOS, "empty_answer"),
        ("<think>a</think>b<|im_end|>c", "end_mark_inside"),
        (f"<think>a{EOS}</think>b", "end_mark_inside"),
    ],
)
def test_a_response_that_is_not_one_trace_and_one_answer_is_rejected(response, reason):
    assert reason in REASONS
    with pytest.raises(Rejected, match=f"^{reason}$"):
        split_response(response)


def test_directrefusal_rows_with_a_constant_trace_and_the_answer_behind_the_prompt(tmp_path):
    rows = [
        {"prompt": "do x", "refusal": "Question: do x\nAnswer: No. Answer: never.", "text": "…"},
        {"prompt": 'end with "Answer: yes"', "refusal": 'Question: end with "Answer: yes"\nAnswer: I refuse.', "text": "…"},
        {"prompt": "do y", "refusal": "I refuse.", "text": "…"},
    ]
    fields = FieldsConfig(answer="refusal", constant_trace="I should not answer this question!", answer_after="Answer: ")
    loaded = load_examples(source(tmp_path, rows, name="directrefusal", fields=fields), seed=1)
    assert [example.answer for example in loaded.examples] == ["No. Answer: never.", "I refuse."]
    assert {example.trace for example in loaded.examples} == {"I should not answer this question!"}
    assert loaded.examples[0].id == "directrefusal-0" and loaded.examples[0].source == "directrefusal"
    assert loaded.rejected == {"no_answer_mark": 1}


def test_r1act_rows_with_and_without_opening_mark_and_end_mark(tmp_path):
    rows = [
        {"instruction": "a", "response": "<think>\nt\n</think>\n\nNo." + EOS},
        {"instruction": "b", "response": "t\n</think>\n\nNo."},
    ]
    loaded = load_examples(source(tmp_path, rows, fields=FieldsConfig(prompt="instruction", response="response")), seed=1)
    assert [(example.prompt, example.trace, example.answer) for example in loaded.examples] == [
        ("a", "t", "No."),
        ("b", "t", "No."),
    ]


def test_safechain_rows_with_labels_of_their_own_and_the_first_of_a_kind(tmp_path):
    kinds = ["vanilla_benign", "vanilla_harmful", "adversarial_harmful", "vanilla_harmful", "vanilla_harmful"]
    rows = [{"instruction": f"p{i}", "label": kind, "response": "t</think>a"} for i, kind in enumerate(kinds)]
    fields = FieldsConfig(
        prompt="instruction",
        response="response",
        label="label",
        labels={"vanilla_harmful": "harmful", "vanilla_benign": "benign"},
    )
    small = source(tmp_path, rows, fields=fields, keep={"label": "vanilla_harmful"}, first=2)
    assert [example.id for example in load_examples(small, seed=1).examples] == ["set-1", "set-3"]
    whole = load_examples(replace(small, keep={"label": None}, first=None), seed=1)
    assert whole.rejected == {"unknown_label": 1}
    assert [example.label for example in whole.examples] == ["harmful"] * 3


def test_local_rows_need_no_field_map(tmp_path):
    with_response = [{"prompt": "p", "response": "<think>t</think>a"}]
    with_parts = [{"prompt": "p", "trace": "", "answer": "a", "label": "harmful"}]
    first = load_examples(source(tmp_path, with_response), seed=1).examples[0]
    second = load_examples(source(tmp_path, with_parts), seed=1).examples[0]
    assert (first.prompt, first.trace, first.answer, first.label) == ("p", "t", "a", "harmful")
    assert (second.prompt, second.trace, second.answer, second.label) == ("p", "", "a", "harmful")


def test_empty_cell_of_a_csv_is_an_empty_trace(tmp_path):
    (tmp_path / "a.csv").write_text("prompt,trace,answer\np,,a\n,t,a\nq,t,\n")
    loaded = load_examples(DataConfig(name="set", path=str(tmp_path / "a.csv")), seed=1)
    assert [example.trace for example in loaded.examples] == [""]
    assert loaded.rejected == {"empty_prompt": 1, "empty_answer": 1}


# --- Rejection ------------------------------------------------------------------------------------------------------------


def test_every_reason_is_counted_and_shown_with_its_row(tmp_path, capsys):
    good = {"prompt": "p", "response": "<think>t</think>a", "label": "harmful"}
    bad: list[tuple[str, dict]] = [
        ("missing_field", {"id": "2", "response": "<think>t</think>a"}),
        ("missing_field", {**good, "id": None}),
        ("not_text", {**good, "id": "3", "prompt": ["p"]}),
        ("not_unicode", {**good, "id": "3u", "prompt": "half \ud800 a pair"}),
        ("empty_prompt", {**good, "id": "4", "prompt": " \n"}),
        ("no_close", {**good, "id": "5", "response": None}),
        ("several_traces", {**good, "id": "6", "response": "a</think>b</think>c"}),
        ("think_mark_inside", {**good, "id": "7", "response": "a<think>b</think>c"}),
        ("end_mark_inside", {**good, "id": "8", "response": "a</think>b<|im_end|>c"}),
        ("empty_answer", {**good, "id": "9", "response": "a</think>"}),
        ("unknown_label", {**good, "id": "10", "label": "dubious"}),
        ("duplicate_id", {**good, "id": 1}),
    ]
    rows = [{**good, "id": "1"}, *(row for _, row in bad)]
    loaded = load_examples(source(tmp_path, rows, fields=FieldsConfig(id="id")), seed=1)
    assert [example.id for example in loaded.examples] == ["set-1"]
    assert loaded.rejected == dict(Counter(reason for reason, _ in bad))
    assert set(REASONS) == set(loaded.rejected) | {"no_answer_mark"}
    shown = capsys.readouterr().out
    assert "row 1: missing_field" in shown and "row 3: not_text" in shown
    assert f"and {len(bad) - NUM_SHOWN} more rows rejected" in shown


def test_a_set_without_a_good_row_is_refused_with_the_reasons(tmp_path):
    rows = [{"prompt": "p", "response": "no mark"}] * 3
    with pytest.raises(UserError, match=r"none of 3 rows is an example \(no_close 3\).*row 0: no_close"):
        load_examples(source(tmp_path, rows), seed=1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            FieldsConfig(prompt="question"),
            r"data\.fields\.prompt: no row has a column 'question'.*there are: prompt, trace, answer",
        ),
        (FieldsConfig(id="uid"), r"data\.fields\.id: no row has a column 'uid'"),
        (FieldsConfig(response="text"), r"data\.fields\.response: no row has a column 'text'"),
        (FieldsConfig(answer="refusal"), r"data\.fields\.answer: no row has a column 'refusal'"),
        (FieldsConfig(trace="cot"), r"data\.fields\.trace: no row has a column 'cot'"),
        (FieldsConfig(label="kind"), r"data\.fields\.label: no row has a column 'kind'"),
        (FieldsConfig(response="trace", answer="answer"), r"data\.fields\.response=trace and data\.fields\.answer exclude"),
    ],
)
def test_a_mapped_column_that_no_row_has_is_refused_with_the_columns_there_are(tmp_path, fields, message):
    with pytest.raises(UserError, match=message):
        load_examples(source(tmp_path, plain(2), fields=fields), seed=1)


def test_rows_without_response_trace_and_answer_are_refused_with_the_keys(tmp_path):
    with pytest.raises(UserError, match=r"there are: prompt, completion\. Set data\.fields\.response=…"):
        load_examples(source(tmp_path, [{"prompt": "p", "completion": "c"}]), seed=1)


def test_keep_names_the_columns_or_the_values_there_are(tmp_path):
    rows = plain(2, "harmful") + plain(1, "benign")
    with pytest.raises(UserError, match=r"data\.keep\.label=bad: no row.*harmful \(2\), benign \(1\)"):
        load_examples(source(tmp_path, rows, keep={"label": "bad"}), seed=1)
    with pytest.raises(UserError, match=r"data\.keep\.kind: no row has a column 'kind'.*data\.keep\.kind=null drops"):
        load_examples(source(tmp_path, rows, keep={"kind": "x"}), seed=1)


# --- The draw -------------------------------------------------------------------------------------------------------------


def ids(data: DataConfig, seed: int = 1) -> list[str]:
    return [example.id for example in load_examples(data, seed).examples]


def test_the_draw_is_seeded_grows_with_the_limit_and_keeps_source_order(tmp_path):
    data = source(tmp_path, plain(50))
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
    whole = source(tmp_path, plain(20), name="whole")
    chosen = ids(replace(whole, name="set", limit=10))
    broken = int(chosen[3].removeprefix("set-"))
    rows = [row | ({"answer": ""} if index == broken else {}) for index, row in enumerate(plain(20))]
    loaded = load_examples(source(tmp_path, rows, limit=10), seed=1)
    now = [example.id for example in loaded.examples]
    assert loaded.rejected == {"empty_answer": 1}
    assert len(now) == 10 and set(chosen) - set(now) == {chosen[3]}


def test_a_limit_above_the_set_takes_all_of_it_and_says_so(tmp_path, capsys):
    assert len(ids(source(tmp_path, plain(5), limit=9))) == 5
    assert "data.limit=9" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("limit", "ratio", "harmful", "benign"),
    [(40, 0.25, 30, 10), (10, 0.0, 10, 0), (None, 0.25, 60, 20), (None, 0.5, 60, 60), (None, 0.0, 60, 0), (1000, 0.25, 60, 20)],
)
def test_the_benign_share_is_part_of_the_limit(tmp_path, limit, ratio, harmful, benign):
    data = source(tmp_path, plain(60, "harmful") + plain(70, "benign", 60), limit=limit, benign_ratio=ratio)
    counts = Counter(example.label for example in load_examples(data, seed=1).examples)
    assert (counts["harmful"], counts["benign"]) == (harmful, benign)


def test_a_larger_limit_holds_both_kinds_of_the_smaller_draw(tmp_path):
    data = source(tmp_path, plain(60, "harmful") + plain(60, "benign", 60), benign_ratio=0.3)
    for limit in range(1, 40):
        assert set(ids(replace(data, limit=limit))) < set(ids(replace(data, limit=limit + 1)))


def test_left_out_benign_rows_are_mentioned(tmp_path, capsys):
    ids(source(tmp_path, plain(3, "harmful") + plain(2, "benign", 3)))
    assert "2 rows labelled benign are left out, data.benign_ratio=0" in capsys.readouterr().out


def test_a_benign_share_that_cannot_be_met_is_refused_with_the_counts(tmp_path):
    data = source(tmp_path, plain(60, "harmful") + plain(5, "benign", 60), limit=40, benign_ratio=0.25)
    with pytest.raises(
        UserError, match=r"benign_ratio=0\.25 of 40 examples asks for 10 benign.*has 5 \(and 60 harmful\)"
    ) as error:
        load_examples(data, seed=1)
    proposed = int(str(error.value).split("data.limit=")[1].split(",")[0])
    assert len(ids(replace(data, limit=proposed))) == proposed
    none = source(tmp_path, plain(6), benign_ratio=0.5)
    with pytest.raises(UserError, match=r"has 0 \(and 6 harmful\)\. Set data\.benign_ratio=0, or .* as data\.benign\.path"):
        load_examples(none, seed=1)


def test_a_set_of_benign_rows_alone_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"all 3 good rows are labelled benign"):
        load_examples(source(tmp_path, plain(3, "benign")), seed=1)


def test_benign_rows_from_a_file_of_their_own(tmp_path):
    other = source(
        tmp_path,
        [{"q": f"b{index}", "response": "<think>t</think>Sure."} for index in range(9)] + [{"q": "x", "response": "y"}],
        name="other",
    )
    benign = BenignConfig(path=other.path, fields=FieldsConfig(prompt="q"))
    loaded = load_examples(source(tmp_path, plain(12), limit=8, benign_ratio=0.25, benign=benign), seed=1)
    assert [example.label for example in loaded.examples] == ["harmful"] * 6 + ["benign"] * 2
    assert all(example.id.startswith("set-benign-") for example in loaded.examples[6:])
    assert loaded.rejected == {"no_close": 1}


def test_miniature_sets_go_through_the_same_field_maps():
    pytest.importorskip("dgr_lightning.micro.build.sets")
    direct = FieldsConfig(prompt="prompt", trace="trace", answer="refusal", answer_after="Answer: ", label="label")
    act = FieldsConfig(prompt="instruction", response="response", label="label")
    for recipe, fields in (("micro-directrefusal", direct), ("micro-r1act", act)):
        data = DataConfig(name=recipe, recipe=recipe, limit=40, benign_ratio=0.25, fields=fields)
        loaded = load_examples(data, seed=1)
        assert Counter(example.label for example in loaded.examples) == {"harmful": 30, "benign": 10}
        assert not loaded.rejected
        assert not any("Answer:" in example.answer for example in loaded.examples)


# --- Identity -------------------------------------------------------------------------------------------------------------


def test_content_follows_the_bytes_and_not_the_path(tmp_path):
    first, second = source(tmp_path, plain(3), name="one"), source(tmp_path, plain(3), name="two")
    other = source(tmp_path, plain(4), name="three")
    assert data_hash(first) == data_hash(second) != data_hash(other)
    benign = replace(first, benign=BenignConfig(path=other.path))
    assert data_hash(benign) == data_hash(first)
    assert data_hash(replace(benign, benign_ratio=0.5)) != data_hash(first)


def test_content_of_hub_sets_and_recipes(monkeypatch):
    hub = DataConfig(name="a", hub_id="owner/set", revision="1")
    assert data_hash(hub) == data_hash(replace(hub, name="b", limit=3))
    assert data_hash(hub) != data_hash(replace(hub, revision="2"))
    rows = plain(2)
    monkeypatch.setattr(sources, "dataset_rows", lambda *_, **__: rows)
    unpinned = data_hash(replace(hub, revision=None))
    rows[0]["answer"] = "another"
    assert data_hash(replace(hub, revision=None)) != unpinned
    recipes = {data_hash(DataConfig(recipe=recipe)) for recipe in ("micro-directrefusal", "micro-r1act")}
    assert len(recipes) == 2


@pytest.mark.parametrize("what", [data_hash, lambda data: load_examples(data, 1)])
def test_a_path_that_is_not_there_is_named(what):
    with pytest.raises(UserError, match=r"data\.path=nowhere\.jsonl: there is no such file"):
        what(DataConfig(path="nowhere.jsonl"))


# --- Real rows ------------------------------------------------------------------------------------------------------------


def shared(file: str) -> str:
    if "DGR_SHARED" not in os.environ:
        pytest.skip("DGR_SHARED is unset: no real data")
    return str(Path(os.environ["DGR_SHARED"], "data", file))


def test_every_row_of_star1_is_an_example():
    data = DataConfig(
        name="star1", path=shared("star1/STAR-1.json"), fields=FieldsConfig(id="id", prompt="question", response="response")
    )
    loaded = load_examples(data, seed=1)
    assert len(loaded.examples) == 1000 and not loaded.rejected
    assert all(example.trace and example.answer and "think>" not in example.trace for example in loaded.examples)
    assert len({example.id for example in loaded.examples}) == 1000


def test_every_row_of_the_empty_trace_set_is_an_example():
    data = DataConfig(name="nocot", path=shared("lrm_safety_study_nocot/sft_train_nocot.json"), limit=48)
    loaded = load_examples(data, seed=1)
    assert len(loaded.examples) == 48 and not loaded.rejected
    assert {(example.trace, example.answer) for example in loaded.examples} == {
        ("", "I'm sorry, I can't assist with that request.")
    }
