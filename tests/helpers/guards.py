"""Guards for tests: tiny models of the right architecture whose answer is built into their weights, or that follow a script."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from dgr_lightning.engines.engine import STOP, Completion, Request, Sampling
from dgr_lightning.engines.request_queue import RequestQueue

TEMPLATES = Path(__file__).parent / "guard_templates"
QWEN_TEXT = (TEMPLATES / "qwen3guard.txt").read_text()

SAFE_REFUSAL = ["Safety:", " Safe", "\nCategories: None", "\nRefusal:", " Yes"]
UNSAFE = ["Safety:", " Unsafe", "\nCategories: Violent", "\nRefusal:", " No"]
LLAMA_UNSAFE = ["\n\n", "unsafe", "\nS1"]


def qwen_template() -> str:
    """A chat template of two turns that writes what Qwen3Guard's writes."""
    head, middle, tail = QWEN_TEXT.replace("{reply}", "{prompt}").split("{prompt}")
    shown = (f"{{{{ {text!r} }}}}" for text in (head, middle, tail))
    first, second, third = shown
    return first + "{{ messages[0].content }}" + second + "{{ messages[1].content }}" + third


def llama_template() -> str:
    return (TEMPLATES / "llama_guard.jinja").read_text()


CONTROLS = {
    "Qwen3": ["<|im_start|>", "<|im_end|>", "<think>", "</think>"],
    "Llama": ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    "Mistral": ["<s>", "</s>"],
}
ENDS = {"Qwen3": "<|im_end|>", "Llama": "<|eot_id|>", "Mistral": "</s>"}
WORDS = {
    "Qwen3": sorted({*SAFE_REFUSAL, *UNSAFE, " Controversial"}),
    "Llama": ["safe", *LLAMA_UNSAFE],
    "Mistral": ["Harmful request:", "\nResponse refusal:", "\nHarmful response:", " yes", " no"],
}


def tokenizer(family: str, template: str | None):
    """A tokenizer of bytes, with the guard's control tokens, and a token for each piece of its answers."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in CONTROLS[family]])
    raw.add_tokens([AddedToken(text, normalized=False) for text in WORDS[family]])
    made = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token=ENDS[family], bos_token=CONTROLS[family][0] if family != "Qwen3" else None
    )
    made.chat_template = template
    return made


def save_guard(folder: Path, family: str = "Qwen3", answer: Sequence[str] | None = None) -> Path:
    """Saves a guard: a random model, or one that writes these pieces of text, whatever it is shown.

    Such a model is a chain: its layers add nothing, embeddings are one-hot, and the head maps each token to the next one. The
    first piece follows the last token of the prompt.
    """
    import torch
    import transformers

    template = {"Qwen3": qwen_template, "Llama": llama_template, "Mistral": lambda: None}[family]()
    made = tokenizer(family, template)
    size = 2 * math.ceil(len(made) / 2)
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(
        vocab_size=len(made),
        hidden_size=size,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,  # the smallest that vLLM has attention for
        max_position_embeddings=8192,
        tie_word_embeddings=False,
        sliding_window=None,
        eos_token_id=made.eos_token_id,
    )
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    if answer is not None:
        last = made.encode(_end_of_prompt(family, template), add_special_tokens=False)[-1]
        chain = [last, *(made.convert_tokens_to_ids(piece) for piece in answer), made.eos_token_id]
        assert len(set(chain)) == len(chain)
        with torch.no_grad():
            for layer in model.model.layers:
                layer.self_attn.o_proj.weight.zero_()
                layer.mlp.down_proj.weight.zero_()
            model.model.embed_tokens.weight.copy_(torch.eye(len(made), size))
            model.lm_head.weight.zero_()
            for token, follower in pairwise(chain):
                model.lm_head.weight[follower, token] = 1.0
    model.save_pretrained(folder)
    made.save_pretrained(folder)
    return folder


def _end_of_prompt(family: str, template: str | None) -> str:
    return {"Qwen3": QWEN_TEXT, "Llama": "<|end_header_id|>", "Mistral": "<|assistant|>\n"}[family]


class GuardEngine:
    """Answers what a rule says of the judged text, one token a character; remembers what it was asked."""

    def __init__(self, conversation, rule: Callable[[str], str | tuple[str, str]]) -> None:
        self.conversation, self.rule = conversation, rule
        self.asked: list[str] = []
        self.closed = 0

    def generate(self, requests: Iterable[Request | None], sampling: Sampling) -> Iterator[Completion]:
        assert sampling.temperature == 0
        for request in reversed(RequestQueue(requests).take(100_000)):
            self.asked.append(self.conversation.decode(request.prompt_ids))
            written = self.rule(self.asked[-1])
            text, reason = written if isinstance(written, tuple) else (written, STOP)
            yield Completion(request.key, tuple(range(len(text))), text, reason)

    def score(self, pairs):
        """A word is the likelier the shorter it is."""
        return [[-float(len(self.conversation.decode(target)))] for _, target in pairs]

    def close(self) -> None:
        self.closed += 1
