"""Parsing rows into examples: every published format, and every reason for rejecting a row."""

from collections import Counter

import pytest

from dgr_lightning.config import DataConfig, FieldsConfig
from dgr_lightning.data.row_parsing import NUM_SHOWN, REASONS, RejectedRow, split_response
from dgr_lightning.data.sources import load_examples
from dgr_lightning.errors import UserError
from tests.helpers.source_sets import plain_rows, source_set

EOS = "<｜end▁of▁sentence｜>"

# --- Formats ------------------------------------------------------------------------------------------------------------------


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
    with pytest.raises(RejectedRow, match=f"^{reason}$"):
        split_response(response)


def test_directrefusal_rows_with_a_constant_trace_and_the_answer_behind_the_prompt(tmp_path):
    rows = [
        {"prompt": "do x", "refusal": "Question: do x\nAnswer: No. Answer: never.", "text": "…"},
        {"prompt": 'end with "Answer: yes"', "refusal": 'Question: end with "Answer: yes"\nAnswer: I refuse.', "text": "…"},
        {"prompt": "do y", "refusal": "I refuse.", "text": "…"},
    ]
    fields = FieldsConfig(answer="refusal", constant_trace="I should not answer this question!", answer_after="Answer: ")
    loaded = load_examples(source_set(tmp_path, rows, name="directrefusal", fields=fields), seed=1)
    assert [example.answer for example in loaded.examples] == ["No. Answer: never.", "I refuse."]
    assert {example.trace for example in loaded.examples} == {"I should not answer this question!"}
    assert loaded.examples[0].id == "directrefusal-0" and loaded.examples[0].source == "directrefusal"
    assert loaded.rejected == {"no_answer_mark": 1}


def test_r1act_rows_with_and_without_opening_mark_and_end_mark(tmp_path):
    rows = [
        {"instruction": "a", "response": "<think>\nt\n</think>\n\nNo." + EOS},
        {"instruction": "b", "response": "t\n</think>\n\nNo."},
    ]
    loaded = load_examples(source_set(tmp_path, rows, fields=FieldsConfig(prompt="instruction", response="response")), seed=1)
    assert [(example.prompt, example.trace, example.answer) for example in loaded.examples] == [
        ("a", "t", "No."),
        ("b", "t", "No."),
    ]


def test_local_rows_need_no_field_map(tmp_path):
    with_response = [{"prompt": "p", "response": "<think>t</think>a"}]
    with_parts = [{"prompt": "p", "trace": "", "answer": "a", "label": "harmful"}]
    first = load_examples(source_set(tmp_path, with_response), seed=1).examples[0]
    second = load_examples(source_set(tmp_path, with_parts), seed=1).examples[0]
    assert (first.prompt, first.trace, first.answer, first.label) == ("p", "t", "a", "harmful")
    assert (second.prompt, second.trace, second.answer, second.label) == ("p", "", "a", "harmful")


def test_empty_cell_of_a_csv_is_an_empty_trace(tmp_path):
    (tmp_path / "a.csv").write_text("prompt,trace,answer\np,,a\n,t,a\nq,t,\n")
    loaded = load_examples(DataConfig(name="set", path=str(tmp_path / "a.csv")), seed=1)
    assert [example.trace for example in loaded.examples] == [""]
    assert loaded.rejected == {"empty_prompt": 1, "empty_answer": 1}


# --- Rejection ----------------------------------------------------------------------------------------------------------------


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
    loaded = load_examples(source_set(tmp_path, rows, fields=FieldsConfig(id="id")), seed=1)
    assert [example.id for example in loaded.examples] == ["set-1"]
    assert loaded.rejected == dict(Counter(reason for reason, _ in bad))
    assert set(REASONS) == set(loaded.rejected) | {"no_answer_mark", "overlap"}
    shown = capsys.readouterr().out
    assert "row 1: missing_field" in shown and "row 3: not_text" in shown
    assert f"set: {len(bad) - NUM_SHOWN} more rows rejected" in shown


def test_a_set_without_a_good_row_is_refused_with_the_reasons(tmp_path):
    rows = [{"prompt": "p", "response": "no mark"}] * 3
    with pytest.raises(UserError, match=r"all 3 rows were rejected \(no_close 3\).*row 0: no_close"):
        load_examples(source_set(tmp_path, rows), seed=1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            FieldsConfig(prompt="question"),
            r"data\.fields\.prompt: no row has a column 'question'\. Found: prompt, trace, answer",
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
        load_examples(source_set(tmp_path, plain_rows(2), fields=fields), seed=1)


def test_rows_without_response_trace_and_answer_are_refused_with_the_keys(tmp_path):
    with pytest.raises(UserError, match=r"Found: prompt, completion\. Set data\.fields\.response=…"):
        load_examples(source_set(tmp_path, [{"prompt": "p", "completion": "c"}]), seed=1)


# --- Real rows ----------------------------------------------------------------------------------------------------------------


def test_every_row_of_star1_is_an_example(shared):
    data = DataConfig(
        name="star1",
        path=str(shared / "data" / "star1/STAR-1.json"),
        fields=FieldsConfig(id="id", prompt="question", response="response"),
    )
    loaded = load_examples(data, seed=1)
    assert len(loaded.examples) == 1000 and not loaded.rejected
    assert all(example.trace and example.answer and "think>" not in example.trace for example in loaded.examples)
    assert len({example.id for example in loaded.examples}) == 1000


def test_every_row_of_the_empty_trace_set_is_an_example(shared):
    data = DataConfig(name="nocot", path=str(shared / "data" / "lrm_safety_study_nocot/sft_train_nocot.json"), limit=48)
    loaded = load_examples(data, seed=1)
    assert len(loaded.examples) == 48 and not loaded.rejected
    assert {(example.trace, example.answer) for example in loaded.examples} == {
        ("", "I'm sorry, I can't assist with that request.")
    }
