"""The miniature's tokenizer and chat template: ordinary Hugging Face files, one token per word.

The vocabulary holds every word of the language and of the refinement templates, in order of first appearance. Think marks are
added tokens but not special ones, as in R1-Distill and Qwen3, so decoding keeps them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, END, USER, ASSISTANT, THINK, END_THINK = "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<think>", "</think>"
UNKNOWN = "<|unknown|>"

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'assistant' %}<|assistant|>{{ message.content }}<|end|>"
    "{% else %}<|user|>{{ message.content }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><think>{% endif %}"
)

_PUNCTUATION = r"[.,:?!]"


def words(text: str) -> list[str]:
    """Splits text as the tokenizer does: at white space, with punctuation as separate words."""
    return re.findall(rf"{_PUNCTUATION}|(?:(?!{_PUNCTUATION})\S)+", text)


def build_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Returns a tokenizer whose vocabulary is the words of `texts`."""
    from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    marks = [PAD, END, USER, ASSISTANT, UNKNOWN, THINK, END_THINK]
    vocabulary = dict.fromkeys([*marks, *(word for text in texts for word in words(text))])
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(_PUNCTUATION), "isolated")]
    )
    tokenizer.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks[:5]])
    tokenizer.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in marks[5:]])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, unk_token=UNKNOWN)
    fast.chat_template = CHAT_TEMPLATE
    return fast
