"""Chat formats as a table: which style is found or why it is refused, prompt, target, and a round trip of trace and answer.

Templates are the published ones where `$DGR_SHARED` has them. Of families whose template is not there, the table has one of the
same kind, made here, and says so in its name. Vocabularies are real where they are there (Qwen2.5, Qwen3, R1-Distill-Qwen), and
else small ones with the family's control tokens.
"""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from dgr_lightning.errors import UserError
from dgr_lightning.models.chat import Chat
from dgr_lightning.models.chat_record import write_record
from dgr_lightning.models.thinking import Parsed
from dgr_lightning.models.tokenizer import load_tokenizer
from tests.helpers.chats import byte_tokenizer

PROMPT, TRACE, ANSWER = "Is 2 > 1?", "So, 2 > 1.\n\nYes: naïve 🙂", "Yes.\n\nIt is <b>."
UNPUBLISHED = "no published template here"

R1 = ["<｜begin▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>"]
LLAMA = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
QWEN = "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
SMOL = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
LLAMA_SYSTEM = "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
TURN = f"<|im_start|>user\n{PROMPT}<|im_end|>\n<|im_start|>assistant\n"
THOUGHT = f"\n{TRACE}\n</think>\n\n{ANSWER}"

CHATML_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
)
ASKED = "Think between <think> and </think>, then answer."
TOKENIZERS = {
    "r1-distill-llama": partial(
        byte_tokenizer, special=[*LLAMA, R1[0], R1[3]], added=["<think>", "</think>", *R1[1:3]], bos=R1[0]
    ),
    "r1": partial(byte_tokenizer, special=R1, added=["<think>", "</think>"], bos=R1[0]),
    "llama": partial(byte_tokenizer, special=LLAMA, bos=LLAMA[0]),
    "chatml": partial(byte_tokenizer, special=CHATML),
    "mistral": partial(byte_tokenizer, special=["<s>", "[INST]", "[/INST]", "[THINK]", "[/THINK]", "</s>"], bos="<s>"),
}
PUBLISHED = {
    "r1-distill-qwen": "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B",
    "r1-distill-llama": "deepseek-ai-DeepSeek-R1-Distill-Llama-8B",
    "llama-cpp-r1": "llama-cpp-deepseek-r1",
    "qwen2.5": "Qwen-Qwen2.5-7B-Instruct",
    "smollm2": "HuggingFaceTB-SmolLM2-135M-Instruct",
    "llama-3.1": "meta-llama-Llama-3.1-8B-Instruct",
}
MADE = {
    "names the marks": "<|im_start|>system\n" + ASKED + "<|im_end|>\n" + CHATML_TEMPLATE + "{% endif %}",
    "opens a thought": CHATML_TEMPLATE + "<think>{% endif %}{# its answers follow </think> #}",
    "plain": CHATML_TEMPLATE + "{% endif %}",
    "mistral": "{{ bos_token }}{% for message in messages %}[INST]{{ message.content }}[/INST]{% endfor %}",
}


@dataclass
class Row:
    """A format: tokenizer, template, what the user writes → style, prompt and target without its end token."""

    tokenizer: str
    template: str
    given: dict[str, Any]
    style: str
    prompt: str
    target: str
    trace: str = TRACE


@dataclass
class Refused:
    """A tokenizer and template for which `auto` has no evidence, or that the given style does not fit."""

    tokenizer: str
    template: str
    given: dict[str, Any] = field(default_factory=dict)
    names: tuple[str, ...] = ("model.chat_style=none", "model.chat_style=s1", "think-text", "model.chat_style=marks")


NONE = {"style": "none"}
CLOSED = {"template_args": {"enable_thinking": False}}
FOUND = {
    "R1-Distill-Qwen": Row(
        "r1-distill-qwen", "r1-distill-qwen", {}, "think", f"{R1[0]}{R1[1]}{PROMPT}{R1[2]}<think>\n", THOUGHT[1:]
    ),
    "R1-Distill-Llama, small vocabulary": Row(
        "r1-distill-llama", "r1-distill-llama", {}, "think", f"{R1[0]}{R1[1]}{PROMPT}{R1[2]}<think>\n", THOUGHT[1:]
    ),
    "DeepSeek-R1 by llama.cpp, small vocabulary": Row(
        "r1", "llama-cpp-r1", {}, "think", f"{R1[0]}{R1[1]}{PROMPT}{R1[3]}{R1[2]}<think>\n", THOUGHT[1:]
    ),
    "Qwen3": Row("qwen3", "own", {}, "think", TURN, f"<think>{THOUGHT}"),
    "Qwen3 that does not think": Row("qwen3", "own", NONE | CLOSED, "none", f"{TURN}<think>\n\n</think>\n\n", ANSWER, trace=""),
    "Qwen2.5-Instruct": Row("qwen2.5", "qwen2.5", NONE, "none", QWEN + TURN, ANSWER, trace=""),
    "s1.1": Row(
        "qwen2.5",
        "own",
        {"style": "s1"},
        "s1",
        QWEN + TURN,
        f"<|im_start|>think\n{TRACE}\n<|im_start|>answer\n{ANSWER}",
    ),
    "SmolLM2, small vocabulary": Row("chatml", "smollm2", NONE, "none", SMOL + TURN, ANSWER, trace=""),
    "Llama-3.1-Instruct, small vocabulary": Row(
        "llama",
        "llama-3.1",
        NONE,
        "none",
        f"{LLAMA_SYSTEM}Today Date: 26 Jul 2024\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n{PROMPT}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        ANSWER,
        trace="",
    ),
    "OpenThinker, on Qwen2.5's template": Row(
        "qwen2.5", "qwen2.5", {"style": "think-text"}, "think-text", QWEN + TURN, f"<think>{THOUGHT}"
    ),
    f"like Open-R1, {UNPUBLISHED}": Row(
        "qwen2.5",
        "names the marks",
        {},
        "think-text",
        f"<|im_start|>system\n{ASKED}<|im_end|>\n{TURN}",
        f"<think>{THOUGHT}",
    ),
    f"like OLMo-Think, {UNPUBLISHED}": Row("chatml", "opens a thought", {}, "think-text", f"{TURN}<think>", THOUGHT),
    f"like OLMo-Think on Qwen2.5's vocabulary, {UNPUBLISHED}": Row(
        "qwen2.5", "opens a thought", {}, "think-text", f"{TURN}<think>", THOUGHT
    ),
    f"marks of one's own as text, {UNPUBLISHED}": Row(
        "qwen2.5",
        "plain",
        {"style": "marks", "marks": ["<reasoning>", "</reasoning>"]},
        "marks",
        TURN,
        f"<reasoning>\n{TRACE}\n</reasoning>\n\n{ANSWER}",
    ),
    f"like Magistral, marks that are tokens, {UNPUBLISHED}": Row(
        "mistral",
        "mistral",
        {"style": "marks", "marks": ["[THINK]", "[/THINK]"]},
        "marks",
        f"<s>[INST]{PROMPT}[/INST]",
        f"[THINK]\n{TRACE}\n[/THINK]\n\n{ANSWER}",
    ),
    f"the marks of Magistral where they are text, {UNPUBLISHED}": Row(
        "chatml",
        "plain",
        {"style": "marks", "marks": ["[THINK]", "[/THINK]"]},
        "marks",
        TURN,
        f"[THINK]\n{TRACE}\n[/THINK]\n\n{ANSWER}",
    ),
}
REFUSED = {
    "Qwen2.5-Instruct": Refused("qwen2.5", "qwen2.5"),
    "a local s1.1": Refused("qwen2.5", "own"),
    "SmolLM2": Refused("chatml", "smollm2"),
    "Llama-3.1-Instruct": Refused("llama", "llama-3.1"),
    "Qwen3 whose template closes thinking": Refused(
        "qwen3", "own", CLOSED, ("model.template_args={enable_thinking: true}", "model.chat_style=none")
    ),
    "Qwen2.5-Instruct as think": Refused("qwen2.5", "own", {"style": "think"}, ("model.chat_style=think-text",)),
    "R1-Distill-Qwen as none": Refused("r1-distill-qwen", "own", NONE, ("model.chat_style=auto",)),
}

Load = Callable[[Row | Refused], Chat]


@cache
def loaded(folder: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(folder)


@pytest.fixture
def load(request: pytest.FixtureRequest) -> Load:
    """Loads a row's chat; only what is published needs the shared folder."""

    def tokenizers() -> Path:
        return request.getfixturevalue("shared") / "tokenizers"

    def load(row: Row | Refused) -> Chat:
        template = MADE.get(row.template)
        if row.template in PUBLISHED:
            template = (tokenizers() / "templates" / f"{PUBLISHED[row.template]}.jinja").read_text(encoding="utf-8")
        if row.tokenizer in TOKENIZERS:
            tokenizer = TOKENIZERS[row.tokenizer](template)
        else:
            tokenizer = copy(loaded(tokenizers() / row.tokenizer))
            tokenizer.chat_template = template or tokenizer.chat_template
        return Chat(tokenizer, **row.given)

    return load


@pytest.mark.parametrize("name", FOUND)
def test_style_prompt_target_and_round_trip(load: Load, name: str) -> None:
    row = FOUND[name]
    chat = load(row)
    assert chat.style == row.style
    assert chat.decode(chat.prompt_ids(PROMPT)) == row.prompt
    ids = chat.target_ids(row.trace, ANSWER)
    assert chat.decode(ids) == row.target and ids[-1] == chat.eos_id
    assert chat.parse(chat.decode(ids), finished=True) == Parsed(row.trace, ANSWER)
    for cut in (
        chat.encode(PROMPT, row.trace, ANSWER, 10_000),
        chat.encode(PROMPT, row.trace, ANSWER, 10_000, append_eos=False),
    ):
        target = cut.ids[cut.num_prompt :]
        assert [chat.decode([target[i] for i in span]).strip() for span in chat.part_spans(target)] == [row.trace, ANSWER]
    assert not chat.has_marks(TRACE) and not chat.has_marks(ANSWER)
    assert all(chat.has_marks(f"a {mark} b") for mark in chat.marks)


@pytest.mark.parametrize("name", FOUND)
def test_what_is_not_finished_or_not_closed_is_no_answer_where_there_is_thinking(load: Load, name: str) -> None:
    row = FOUND[name]
    chat = load(row)
    begun = chat.decode(chat.target_ids(row.trace, ANSWER)).partition("Yes")[0]
    if not chat.thinks:
        assert chat.parse("Yes.") == chat.parse("Yes.", finished=True) == Parsed("", "Yes.")
        return
    assert chat.parse(begun, finished=True).answer is None
    prefilled = row.prompt.endswith(("<think>", "<think>\n"))
    assert chat.parse("Yes.", finished=True) == (Parsed("Yes.", None) if prefilled else Parsed(None, "Yes."))
    assert chat.parse("Yes.").answer is None


@pytest.mark.parametrize("name", REFUSED)
def test_nothing_is_guessed(load: Load, name: str) -> None:
    with pytest.raises(UserError) as refusal:
        load(REFUSED[name])
    assert not [choice for choice in REFUSED[name].names if choice not in str(refusal.value)], str(refusal.value)


@pytest.mark.parametrize("name", [name for name, row in FOUND.items() if row.trace])
def test_parts_of_a_cut_trace_are_what_is_left_of_it(load: Load, name: str) -> None:
    chat, trace = load(FOUND[name]), " ".join(f"Step {i}." for i in range(300))
    whole = chat.encode(PROMPT, trace, ANSWER, 100_000)
    encoded = chat.encode(PROMPT, trace, ANSWER, len(whole.ids) - 200)
    target = encoded.ids[encoded.num_prompt :]
    left, answer = (chat.decode([target[i] for i in span]).strip() for span in chat.part_spans(target))
    assert trace.startswith(left) and 100 < len(left) < len(trace) and answer == ANSWER


def test_a_target_without_a_close_has_no_parts(load: Load) -> None:
    chat = load(FOUND[f"like OLMo-Think, {UNPUBLISHED}"])
    ids = chat.target_ids("So.", "Yes.")
    with pytest.raises(ValueError, match="closing mark"):
        chat.part_spans(ids[:4])


def test_marks_that_are_tokens_are_no_text_where_a_user_spells_them(load: Load) -> None:
    chat = load(FOUND[f"like Magistral, marks that are tokens, {UNPUBLISHED}"])
    mark = chat.tokenizer.convert_tokens_to_ids("[/THINK]")
    assert mark not in chat.prompt_ids("a [/THINK] b") and chat.target_ids("a [/THINK] b", "c").count(mark) == 1
    assert chat.is_control(mark) and chat.decode(chat.prompt_ids("[/THINK]")) == "<s>[INST][/THINK][/INST]"


def test_a_mark_spelled_in_a_row_is_the_mark_only_where_marks_are_text(load: Load) -> None:
    tokens, text = (load(FOUND[name]) for name in FOUND if "Magistral" in name)
    assert text.spells_mark("a [/THINK] b") and not text.spells_mark(TRACE) and not text.spells_mark("<|im_end|>")
    assert not tokens.spells_mark("a [/THINK] b")
    assert not load(Row("chatml", "plain", NONE, "none", TURN, ANSWER)).spells_mark("a </think> b")


def test_a_trace_is_refused_where_the_style_has_none(load: Load) -> None:
    chat = load(Row("chatml", "plain", NONE, "none", TURN, ANSWER))
    for encode in (chat.target_ids, lambda trace, answer: chat.encode(PROMPT, trace, answer, 100)):
        with pytest.raises(UserError, match=r"it has a trace.*model\.chat_style=none.*data\.fields\.constant_trace="):
            encode("So.", "Yes.")
    assert chat.prompt_ids(PROMPT, thinking=False) == chat.prompt_ids(PROMPT)


# The record of an exported model


def slow_with_a_real_vocabulary(name: str) -> Any:
    return name if FOUND[name].tokenizer in TOKENIZERS else pytest.param(name, marks=pytest.mark.slow)


@pytest.mark.parametrize("name", [*map(slow_with_a_real_vocabulary, FOUND)])
def test_an_exported_folder_is_read_as_it_was_recorded(load: Load, name: str, tmp_path: Path) -> None:
    chat = load(FOUND[name])
    chat.tokenizer.save_pretrained(tmp_path)
    write_record(tmp_path, chat.identity)
    again = Chat.load(tmp_path)
    assert again.identity == chat.identity and again.style == FOUND[name].style
    assert again.prompt_ids(PROMPT) == chat.prompt_ids(PROMPT)
    assert again.target_ids(FOUND[name].trace, ANSWER) == chat.target_ids(FOUND[name].trace, ANSWER)


def test_what_the_user_writes_counts_before_the_record(tmp_path: Path) -> None:
    byte_tokenizer(MADE["plain"], CHATML).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"model\.chat_style=s1"):
        Chat.load(tmp_path)
    write_record(tmp_path, {"chat_style": "s1", "system_prompt": "Be brief.", "template_args": {"a": 1}})
    recorded = {"chat_style": "s1", "system_prompt": "Be brief.", "template_args": {"a": 1}}
    assert Chat.load(tmp_path).identity == recorded
    assert Chat.load(tmp_path, "think-text", system_prompt="Think.", template_args={"b": 2}).identity == {
        "chat_style": "think-text",
        "system_prompt": "Think.",
        "template_args": {"b": 2},
    }
    own = Chat.load(tmp_path, "marks", marks=["<a>", "</a>"])
    assert own.identity == recorded | {"chat_style": "marks", "think_marks": ["<a>", "</a>"]}


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"chat_style": "chatml"}',
        '{"style": "s1"}',
        '{"template_args": 3}',
        '{"chat_style": "marks"}',
        '{"chat_style": "think", "think_marks": ["<a>", "</a>"]}',
    ],
)
def test_a_damaged_record_is_refused(tmp_path: Path, text: str) -> None:
    byte_tokenizer(MADE["plain"], CHATML).save_pretrained(tmp_path)
    (tmp_path / "dgr_chat.json").write_text(text)
    with pytest.raises(UserError, match=r"dgr_chat\.json: not the record of a chat format"):
        Chat.load(tmp_path)
