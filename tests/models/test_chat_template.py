"""Prompts are what transformers' own `apply_chat_template` gives, and a template that gives none is refused by its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from dgr_lightning.errors import UserError
from dgr_lightning.models.chat import Chat
from dgr_lightning.models.chat_template import ChatTemplate
from dgr_lightning.prompts import rendering
from tests.helpers.chats import MICRO_TEMPLATE, byte_tokenizer

PROMPTS = ["What is 2 + 2?", "", "  spaces \n\n", "Ünï 你好 🦙 \u2028 <think> </think> {{ 7 * 7 }} \\ \"'", "word " * 2000]
TOOL = {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object"}}}
PLAIN = "{% for message in messages %}<|im_start|>{{ message.content }}<|im_end|>{% endfor %}"


def byte_level(template: Any) -> PreTrainedTokenizerFast:
    return byte_tokenizer(template, special=["<|endoftext|>", "<|im_start|>", "<|im_end|>"], bos="<|endoftext|>")


def same(tokenizer: PreTrainedTokenizerFast, system: str | None, args: dict[str, Any]) -> None:
    template = ChatTemplate(tokenizer, system, args)
    for prompt in PROMPTS:
        messages = ([] if system is None else [{"role": "system", "content": system}]) + [{"role": "user", "content": prompt}]
        try:
            expected = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, **args)
        except TypeError as error:  # DeepSeek-R1's template by llama.cpp cannot write tools
            with pytest.raises(UserError, match=str(error)):
                template.render(prompt)
            continue
        assert template.render(prompt) == expected
        assert template.ids(prompt) == tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=False, **args
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    "args", [{}, {"enable_thinking": False}, {"tools": [TOOL]}, {"documents": [{"title": "a", "text": "b"}]}]
)
@pytest.mark.parametrize("system", [None, "Be brief."])
def test_published_templates_give_what_transformers_gives(shared: Path, chats, system, args):
    folder = shared / "tokenizers" / "templates"
    texts = [file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.jinja"))]
    assert len(texts) >= 6
    for text in texts:
        same(byte_level(text), system, args)
    for chat in chats.values():
        same(chat.tokenizer, system, args)


@pytest.mark.parametrize(
    "template",
    [
        MICRO_TEMPLATE,
        PLAIN,
        "{{ bos_token }}{{ eos_token }}{{ pad_token }}{{ messages | tojson }}{{ tools is none }}{{ documents is none }}",
        "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}\n"
        "  {% generation %}{{ m.content }}{% endgeneration %}\n{% endfor %}",
        "{{ strftime_now('%Y') }}{{ nothing }}{{ ''.__class__ }}{{ add_generation_prompt }}{{ mine }}",
    ],
)
def test_what_templates_can_use_is_what_transformers_gives_them(template):
    same(byte_level(template), "Be brief.", {"mine": {"nested": [1, None, 0.5]}})


NAMED = {"default": PLAIN + "a", "tool_use": PLAIN + "b", "rag": PLAIN + "c"}


@pytest.mark.parametrize("args", [{}, {"tools": [TOOL]}, {"chat_template": "rag"}, {"chat_template": "rag", "tools": [TOOL]}])
def test_of_several_templates_the_one_that_transformers_takes_is_rendered(args):
    same(byte_level(NAMED), None, args)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (None, "has no chat template"),
        ("", "has no chat template"),
        ({"rag": PLAIN, "mine": PLAIN}, r"several chat templates \(rag, mine\).*model\.template_args\.chat_template="),
        (5, "its chat template is no text but int"),
        ({"default": ["a"]}, "its chat template is no text but list"),
        ("{% if %}", r"is not a Jinja2 template \(line 1: .*put a chat_template\.jinja of your own"),
        ("{{ ''.__class__.__mro__ }}", r"fails when it is rendered \(SecurityError"),
        ("{{ nothing.more }}", r"fails when it is rendered \(UndefinedError: 'nothing' is undefined\)"),
        ("{{ messages.count() }}", r"fails when it is rendered \(TypeError"),
        ("{{ raise_exception('no users') }}", r"refuses a message \(no users\), for a prompt of 1 characters"),
        ("{{ 1 / 0 }}", r"fails when it is rendered \(ZeroDivisionError"),
        ("{% for i in range(99999) %}{{ 'a' * 3000 }}{% endfor %}", "writes more than 4,"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_with_the_folder(template, words):
    tokenizer = byte_level(PLAIN)
    tokenizer.name_or_path, tokenizer.chat_template = "some/folder", template
    with pytest.raises(UserError, match=rf"^some/folder.*{words}"):
        Chat(tokenizer, "none")


def test_a_template_that_hangs_on_some_prompt_alone_is_refused_there(monkeypatch):
    loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    tokenizer = byte_level("{% if 'magic' in messages[0].content %}" + loops + "{% endif %}" + PLAIN)
    chat = Chat(tokenizer, "none")
    plain = chat.prompt_ids("a")
    monkeypatch.setattr(rendering, "SECONDS", 1.0)
    for ids in (chat.prompt_ids, chat.template_ids):
        with pytest.raises(UserError, match=r"does not come to an end within 1 s, for a prompt of 11 characters"):
            ids("magic words")
    assert chat.prompt_ids("a") == plain


@pytest.mark.parametrize("name", ["tokenize", "add_generation_prompt", "continue_final_message", "return_tensors", "padding"])
def test_an_argument_of_transformers_is_none_of_the_template(name):
    with pytest.raises(UserError, match=rf"^model\.template_args\.{name}: .*leave it out"):
        ChatTemplate(byte_level(PLAIN), None, {name: True})


class OwnCode(PreTrainedTokenizerFast):
    """A class of its own, as a folder's code may hold."""

    def apply_chat_template(self, messages: Any, **options: Any) -> str:  # type: ignore[override]
        return f"<|im_start|>{messages[-1]['content']}<|im_end|>{sorted(options)}"


def test_a_tokenizer_that_renders_by_its_own_code_does():
    tokenizer = OwnCode(tokenizer_object=byte_level(PLAIN).backend_tokenizer, eos_token="<|im_end|>")
    tokenizer.chat_template = "not what it renders"
    template = ChatTemplate(tokenizer, None, {"mine": 1})
    assert template.render("a") == "<|im_start|>a<|im_end|>['add_generation_prompt', 'mine', 'tokenize']"
    assert template.ids("a") == tokenizer.encode(template.render("a"), add_special_tokens=False)
