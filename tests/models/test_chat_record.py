"""The record of a chat format: what is none is refused, whoever wrote it."""

import json

import pytest

from dgr_lightning.errors import UserError
from dgr_lightning.models.chat_record import ChatRecord, read_record, write_record

DEEP = 200_000


def test_what_is_written_is_read(tmp_path):
    assert read_record(tmp_path) == ChatRecord()
    write_record(tmp_path, {"chat_style": "think", "template_args": {"a": [1, {"b": None}]}, "system_prompt": "Brief."})
    assert read_record(tmp_path) == ChatRecord("think", None, "Brief.", {"a": [1, {"b": None}]})


@pytest.mark.parametrize(
    "text",
    [
        "[" * DEEP + "]" * DEEP,
        '{"template_args":' * DEEP + "{}" + "}" * DEEP,
        '{"template_args": {"a": ' + "9" * 5000 + "}}",
        '{"system_prompt": "\\ud800"}',
        "[]",
        "3",
        "null",
        "",
        *map(
            json.dumps,
            [
                {"chat_style": 5},
                {"chat_style": ["think"]},
                {"chat_style": "nope"},
                {"template_args": [1]},
                {"system_prompt": 5},
                {"chat_style": "marks", "think_marks": "ab"},
                {"chat_style": "marks", "think_marks": [1, 2]},
                {"mine": 1},
            ],
        ),
    ],
)
def test_what_is_no_record_is_one_message(tmp_path, text):
    (tmp_path / "dgr_chat.json").write_text(text)
    with pytest.raises(UserError, match=r"dgr_chat\.json: not the record of a chat format"):
        read_record(tmp_path)
