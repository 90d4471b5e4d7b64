"""The distribution shift of a set: the negative log-likelihood of exactly the tokens that training would learn."""

import math
import os
import subprocess
import sys

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from dgr_lightning.chat import Chat
from dgr_lightning.engines.transformers import TransformersEngine
from dgr_lightning.errors import UserError
from dgr_lightning.records import Example
from dgr_lightning.shift import mean_nll, nll

WORDS = [f"w{i}" for i in range(20)]


@pytest.fixture(scope="module")
def chat():
    marks = ["<pad>", "<end>", "<user>", "<assistant>", "<think>", "</think>"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(marks + WORDS)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_tokens([AddedToken(mark, normalized=False) for mark in marks])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>")
    fast.chat_template = "<user> {{ messages[0].content }} <assistant> <think>"
    return Chat(fast)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
    return Qwen3ForCausalLM(Qwen3Config(vocab_size=26, num_hidden_layers=1, initializer_range=0.5, **sizes)).eval()


@pytest.fixture(scope="module")
def examples():
    def text(begin, number):
        return " ".join(WORDS[(begin + i) % 20] for i in range(number))

    # More than are scored at once, of all lengths, out of order.
    return [
        Example(str(i), text(i, 1 + i % 5), text(2 * i, (7 * i) % 13), text(3 * i, 1 + i % 3), "harmful", "x")
        for i in range(150)
    ]


def by_hand(model, chat, example):
    prompt, target = chat.prompt_ids(example.prompt), chat.target_ids(example.trace, example.answer)
    with torch.no_grad():
        logits = model(torch.tensor([prompt + target])).logits[0, len(prompt) - 1 : -1]
    return torch.nn.functional.cross_entropy(logits, torch.tensor(target), reduction="sum").item(), len(target)


def test_nll_is_the_loss_of_the_target_given_the_prompt(chat, model, examples):
    values = nll(TransformersEngine(model, 0, "fp32"), chat, examples, max_length=100)
    assert len(values) == len(examples)
    for example, value in zip(examples, values, strict=True):
        total, tokens = by_hand(model, chat, example)
        assert value.tokens == tokens
        assert value.total == pytest.approx(total, rel=1e-4)
        assert value.mean == pytest.approx(total / tokens, rel=1e-4)


def test_the_mean_of_a_set_counts_every_token_the_same(chat, model, examples):
    sums = [by_hand(model, chat, example) for example in examples]
    expected = math.fsum(total for total, _ in sums) / sum(tokens for _, tokens in sums)
    assert mean_nll(TransformersEngine(model, 0, "fp32"), chat, examples, max_length=100) == pytest.approx(expected, rel=1e-4)


def test_a_long_example_counts_as_it_is_trained_on(chat, model):
    long = Example("a", "w1", " ".join(["w2"] * 40), "w3 w4", "harmful", "x")
    short = Example("b", "w1", " ".join(["w2"] * 12), "w3 w4", "harmful", "x")
    engine = TransformersEngine(model, 0, "fp32")
    cut, same = nll(engine, chat, [long, short], max_length=20)
    assert cut.tokens == 16
    assert cut.total == pytest.approx(same.total, rel=1e-4)
    with pytest.raises(UserError, match=r"sft\.max_length"):
        nll(engine, chat, [long], max_length=7)


def test_generation_and_scoring_need_neither_hydra_nor_datasets():
    code = (
        "import sys, dgr_lightning.chat, dgr_lightning.store, dgr_lightning.shift, dgr_lightning.engines.transformers\n"
        "assert not {'hydra', 'omegaconf', 'datasets', 'lightning'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
