"""A chat of words, for tests: one token a word, no white space, a prompt that ends in `<think>` without a line break."""

from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from dgr_lightning.models.chat import Chat

WORDS = ["bake", "a", "bread", "first", "mix", "flour", "I", "cannot", "help", "with", "that", ".", "?", "4"]
MICRO_TEMPLATE = (
    "{% for message in messages %}<|user|>{{ message.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><think>{% endif %}"
)


@dataclass
class Micro:
    """The chat, and the id of every word."""

    chat: Chat
    id_of: dict[str, int]


def word_chat(folder: Path) -> Micro:
    """Saves the tokenizer in a folder and loads it as a chat."""
    marks = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|unknown|>", "<think>", "</think>"]
    id_of = {word: i for i, word in enumerate(marks + WORDS)}
    tokenizer = Tokenizer(models.WordLevel(id_of, unk_token="<|unknown|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks[:5]])
    tokenizer.add_tokens([AddedToken(mark, normalized=False) for mark in marks[5:]])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>")
    fast.chat_template = MICRO_TEMPLATE
    fast.save_pretrained(folder)
    return Micro(Chat.load(folder), id_of)
