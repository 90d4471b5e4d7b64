"""The tokenizer: a closed vocabulary that covers the language, and think marks that survive decoding."""

from itertools import islice

import pytest

from dgr_lightning.config import DataConfig, FieldsConfig
from dgr_lightning.data import sources
from dgr_lightning.micro import corpus, sets
from dgr_lightning.micro.arithmetic import STEPS
from dgr_lightning.micro.tokenizer import UNKNOWN, build_tokenizer

FIELDS = {
    "micro-directrefusal": FieldsConfig(answer="refusal", answer_after="Answer: "),
    "micro-r1act": FieldsConfig(prompt="instruction"),
}


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(corpus.utterances())


def test_every_text_of_the_language_is_in_the_vocabulary(tokenizer):
    texts = [" ".join(draw) for draw in islice(corpus.draws(1), 3000)]
    for recipe, columns in FIELDS.items():
        examples = sources.load_examples(
            DataConfig(name=recipe, recipe=recipe, benign_ratio=0.5, fields=columns), seed=1
        ).examples
        texts += [f"{example.prompt} {example.trace} {example.answer}" for example in examples]
    for task in (*STEPS, "micro-harmful", "micro-benign"):
        texts += [row["prompt"] for split in ("probe", "evaluation") for row in sets.problems(task, split)]
    unknown = tokenizer.convert_tokens_to_ids(UNKNOWN)
    assert [text for text in texts if unknown in tokenizer(text)["input_ids"]] == []


def test_own_voice_survives_encoding_and_decoding_with_its_think_marks(tokenizer):
    text = r"step a : 9 - 5 = 4 . </think> the last digit is \boxed{4} . I cannot help with that ."
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text
