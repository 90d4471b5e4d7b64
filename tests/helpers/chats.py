"""Small tokenizers with a chat template, for tests: of words, and of bytes with merges like those of real families."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
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
    """Saves a tokenizer of one token a word, without white space, in a folder and loads it as a chat.

    Its prompt ends in `<think>` without a line break.
    """
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


# How Qwen2 and Llama 3 split text: punctuation takes the line breaks after it along.
_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CORPUS = ["<think>\nSo it is.\n</think>\n\nIt is 4.\n\n", "assistant\n", "<reasoning>\n</reasoning>\n\n", "user\n"]


def byte_tokenizer(template: str, special: Sequence[str], added: Sequence[str] = (), bos: str | None = None):
    """Returns a byte-level tokenizer with few merges; the last special token ends a turn.

    Args:
        template: its chat template.
        special: its special tokens.
        added: tokens that were added and are not special.
        bos: the special token that begins a sequence.
    """
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(_SPLIT), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=340, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(_CORPUS * 4, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in added])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=special[-1], **({"bos_token": bos} if bos else {}))
    fast.chat_template = template
    return fast
