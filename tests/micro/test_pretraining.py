"""The recipe of the miniature, and the folder that it becomes."""

from dataclasses import replace

import pytest

from dgr_lightning.micro.pretraining import Recipe, grow


def test_the_recipe_hash_follows_the_recipe():
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


def test_a_loss_that_is_not_finite_ends_the_growing_and_leaves_nothing(tmp_path):
    with pytest.raises(FloatingPointError, match="the loss of step 1 is nan"):
        grow(replace(Recipe(), steps=3, warmup_steps=1, adamw_lr=float("inf")), tmp_path, "fp32")
    assert not list(tmp_path.iterdir())
