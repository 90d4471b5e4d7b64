"""Pretrains the miniature: a Qwen3 of 0.6M parameters, from scratch, in minutes on two CPU cores.

Muon trains the matrices and AdamW the rest (AdamW alone needs about 1.5 times the steps). Batches have equal token counts, from
length buckets; the loss covers trace and answer only. `initializer_range` is 0.08: at the default of 0.02, a model this narrow
does not learn to copy even in twice the steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import torch

from dgr_lightning.console import progress
from dgr_lightning.distributed.muon import Muon
from dgr_lightning.hashes import content_hash
from dgr_lightning.micro import corpus
from dgr_lightning.micro.tokenizer import ASSISTANT, END, END_THINK, PAD, THINK, USER, build_tokenizer
from dgr_lightning.models.attention import use_document_attention
from dgr_lightning.models.folder import LANGUAGE
from dgr_lightning.models.quiet_imports import quiet_imports, quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM


@dataclass(frozen=True)
class Recipe:
    """Everything that determines the weights on one machine; raise `version` when the language or this code changes."""

    version: int = 3
    seed: int = 0
    width: int = 128
    layers: int = 3
    heads: int = 4
    kv_heads: int = 2
    head_size: int = 32
    mlp: int = 384
    steps: int = 700
    batch_tokens: int = 4000
    muon_lr: float = 8.8e-3
    adamw_lr: float = 3e-3
    warmup_steps: int = 50
    flat: float = 0.5
    initializer_range: float = 0.08

    @property
    def hash(self) -> str:
        """Content hash of the recipe, the vocabulary and a sample of the corpus."""
        vocabulary = list(corpus.utterances())
        sample = list(islice(corpus.draws(0), 2000))
        return content_hash(asdict(self), corpus.MIXTURE, corpus.EXTERNAL_SHARE, vocabulary, sample)


def grow(recipe: Recipe, folder: Path, precision: str) -> None:
    """Pretrains the miniature and writes it into `folder` as an ordinary Hugging Face model.

    Args:
        recipe: size, steps and optimizer settings.
        folder: receives config, weights (safetensors, fp32), tokenizer and chat template.
        precision: bf16 (autocast; master weights stay fp32) or fp32, which takes more than twice as long.

    Raises:
        FloatingPointError: a loss is not finite; nothing is written.
    """
    tokenizer = build_tokenizer(corpus.utterances())
    model = _new_model(recipe, tokenizer)
    optimizer = _optimizer(model, recipe, precision)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _lr_factor(step, recipe))
    batches = _batches(tokenizer, recipe)
    model.train()
    with progress("pretraining the miniature", recipe.steps) as advance:
        for step in range(recipe.steps):
            input_ids, targets = next(batches)
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                hidden = model.model(input_ids=input_ids, use_cache=False).last_hidden_state
                in_loss = targets != -100
                logits = model.lm_head(hidden[in_loss])
            loss = torch.nn.functional.cross_entropy(logits.float(), targets[in_loss])
            if not loss.isfinite():
                raise FloatingPointError(f"pretraining the miniature of seed {recipe.seed}: the loss of step {step} is {loss}")
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            scheduler.step()
            advance(1)
    with quiet_transformers():
        model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _new_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    with quiet_imports():
        from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(recipe.seed)
    config = Qwen3Config(
        vocab_size=-(-len(tokenizer) // 64) * 64,
        hidden_size=recipe.width,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.kv_heads,
        head_dim=recipe.head_size,
        intermediate_size=recipe.mlp,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        initializer_range=recipe.initializer_range,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    setattr(config, LANGUAGE, "micro")
    model = Qwen3ForCausalLM(config)
    use_document_attention(model)
    return model


def _optimizer(model: Qwen3ForCausalLM, recipe: Recipe, precision: str) -> Muon:
    """Returns Muon in the type of the computation: torch's own always orthogonalises in bf16, which old CPUs only emulate."""
    matrices = [weight for name, weight in model.named_parameters() if weight.ndim == 2 and "embed" not in name]
    rest = [weight for name, weight in model.named_parameters() if weight.ndim != 2 or "embed" in name]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "muon": True, "lr": recipe.muon_lr, "weight_decay": 0.0},
        {"params": rest, "muon": False, "lr": recipe.adamw_lr, "weight_decay": 0.0, "betas": (0.9, 0.95)},
    ]
    return Muon(groups, recipe.muon_lr, torch.bfloat16 if precision == "bf16" else torch.float32)


def _lr_factor(step: int, recipe: Recipe) -> float:
    """Learning rate relative to its peak: warm-up, then constant, then linear decay to zero."""
    rise = min(1.0, (step + 1) / recipe.warmup_steps)
    fall = min(1.0, (recipe.steps - step) / (recipe.steps * (1 - recipe.flat)))
    return rise * fall


def _batches(tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yields (input ids, next-token targets), both [sequences, length - 1], right-padded, about `batch_tokens` tokens each."""
    pad = tokenizer.convert_tokens_to_ids(PAD)
    stream, random = corpus.draws(recipe.seed), Random(recipe.seed)
    while True:
        draws = list(islice(stream, 1024))
        prompts = _encode(tokenizer, [USER + prompt + ASSISTANT + THINK for prompt, _, _ in draws])
        targets = _encode(tokenizer, [trace + END_THINK + answer + END for _, trace, answer in draws])
        pairs = sorted(zip(prompts, targets, strict=True), key=lambda pair: len(pair[0]) + len(pair[1]))
        batches, batch = [], []
        for pair in pairs:
            batch.append(pair)
            if len(batch) * (len(pair[0]) + len(pair[1])) >= recipe.batch_tokens:
                batches.append(batch)
                batch = []
        if batch:
            batches.append(batch)
        random.shuffle(batches)
        for batch in batches:
            length = max(len(prompt) + len(target) for prompt, target in batch)
            rows = [prompt + target + [pad] * (length - len(prompt) - len(target)) for prompt, target in batch]
            labels = [[-100] * len(prompt) + target + [-100] * (length - len(prompt) - len(target)) for prompt, target in batch]
            yield torch.tensor(rows)[:, :-1], torch.tensor(labels)[:, 1:]


def _encode(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[Any]:
    return tokenizer(texts, add_special_tokens=False)["input_ids"]
