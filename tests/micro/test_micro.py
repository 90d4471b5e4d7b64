"""The miniature's language: disjoint splits, a closed vocabulary, prompts of every template, and what the model learned."""

from itertools import islice

import pytest

from dgr_lightning.config import DataConfig, FieldsConfig
from dgr_lightning.data import sources
from dgr_lightning.micro import corpus, sets
from dgr_lightning.micro.arithmetic import STEPS, Chain, benchmark
from dgr_lightning.micro.requests import all_requests
from dgr_lightning.micro.tokenizer import UNKNOWN, build_tokenizer

FIELDS = {
    "micro-directrefusal": FieldsConfig(answer="refusal", answer_after="Answer: "),
    "micro-r1act": FieldsConfig(prompt="instruction"),
}
SPLITS = ("train", "probe", "evaluation")


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(corpus.utterances())


def test_arithmetic_is_right_modulo_ten():
    chain = Chain(9, (("subtract", 5), ("multiply", 8), ("subtract", 7)))
    assert chain.values == [4, 2, 5]
    assert chain.trace == "step a : 9 - 5 = 4 . step b : 4 * 8 = 2 . step c : 2 - 7 = 5 ."
    assert chain.answer == r"the last digit is \boxed{5} ."


@pytest.mark.parametrize("harmful", [True, False])
def test_requests_of_the_three_splits_share_no_verb_and_object(harmful):
    deeds = {split: {request.deed for request in all_requests(harmful, split)} for split in SPLITS}
    assert all(deeds.values())
    assert not deeds["train"] & deeds["probe"] and not deeds["train"] & deeds["evaluation"]
    assert not deeds["probe"] & deeds["evaluation"]


def test_no_request_is_both_harmful_and_benign():
    deeds = [{request.deed for split in SPLITS for request in all_requests(harmful, split)} for harmful in (True, False)]
    assert not deeds[0] & deeds[1]


@pytest.mark.parametrize("task", STEPS)
def test_benchmarks_are_distinct_disjoint_and_of_their_length(task):
    problems = {split: benchmark(task, split, 60) for split in ("probe", "evaluation")}
    prompts = {split: {chain.prompt for chain in chains} for split, chains in problems.items()}
    assert all(len(prompts[split]) == 60 for split in prompts)
    assert not prompts["probe"] & prompts["evaluation"]
    assert {len(chain.steps) for chain in problems["evaluation"]} == set(STEPS[task])


def test_pretraining_reads_nothing_that_is_held_out():
    held_out = {chain.prompt for task in STEPS for split in ("probe", "evaluation") for chain in benchmark(task, split, 200)}
    deeds = {r.deed for harmful in (True, False) for split in ("probe", "evaluation") for r in all_requests(harmful, split)}
    for prompt, trace, answer in islice(corpus.draws(0), 4000):
        assert not any(line in held_out for line in prompt.split("\n"))
        assert not any(f"{deed} " in f"{prompt} {trace} {answer} ".replace("?", " ") for deed in deeds)


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


@pytest.mark.parametrize("name", corpus.TEMPLATES)
def test_pretraining_holds_prompts_of_every_shipped_template(name):
    opening = corpus.template(name).render(question="\0", trace="\0", answer="\0").split("\0")[-1].strip() or "reference"
    fixed = corpus.template(name).render(question="", trace="", answer="").split()[0]
    assert any(prompt.split()[0] == fixed or opening in prompt for prompt, _, _ in islice(corpus.draws(0), 400))


def test_source_sets_hold_enough_rows_of_both_kinds():
    for recipe in ("micro-directrefusal", "micro-r1act"):
        labels = [row["label"] for row in sets.source_rows(recipe)]
        assert labels.count("harmful") >= 300 and labels.count("benign") >= 200


def test_the_recipe_hash_follows_the_recipe():
    from dataclasses import replace

    from dgr_lightning.micro.pretraining import Recipe

    assert Recipe().hash == Recipe().hash != replace(Recipe(), steps=Recipe().steps + 1).hash
    assert Recipe().hash != Recipe(seed=1).hash


def test_the_miniature_is_an_ordinary_folder(micro_folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(micro_folder)
    tokenizer = AutoTokenizer.from_pretrained(micro_folder)
    assert 0.5e6 < model.num_parameters() < 1e6
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "is it harmful to bake a cake ?"}], add_generation_prompt=True, tokenize=False
    )
    assert prompt.endswith("<think>")
    assert model.config.architectures == ["Qwen3ForCausalLM"]
