"""A ChatML instruct model without think tokens that says the same sentence to everything, as a Hugging Face folder."""

from itertools import pairwise
from pathlib import Path

WORDS = ["I", "cannot", "help", "with", "that", ".", "4"]
"""What it says, a token each, and then ends the turn."""

_CONTROLS = ["<|unknown|>", "<|im_start|>", "<|im_end|>"]
_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }} {{ message.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
)


def save_instruct_model(folder: Path) -> Path:
    """Saves it: a Qwen2 whose layers add nothing, so that each token alone decides the next."""
    import torch
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    chain = ["assistant", *WORDS, "<|im_end|>"]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys([*_CONTROLS, "user", *chain]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<|unknown|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(control, special=True, normalized=False) for control in _CONTROLS])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", unk_token="<|unknown|>")
    fast.chat_template = _TEMPLATE
    fast.save_pretrained(folder)

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Qwen2Config(vocab_size=len(vocabulary), num_key_value_heads=2, max_position_embeddings=256, **sizes)
    model = Qwen2ForCausalLM(config)
    with torch.no_grad():
        for weight in (model.model.layers[0].self_attn.o_proj.weight, model.model.layers[0].mlp.down_proj.weight):
            weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(len(vocabulary), sizes["hidden_size"]))
        model.lm_head.weight.zero_()
        for word, following in pairwise(chain):
            model.lm_head.weight[vocabulary[following], vocabulary[word]] = 1.0
    model.save_pretrained(folder)
    return folder
