"""The shape of a decoder's attention, from its config: what keys, values and attention's products follow from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class AttentionShape:
    """What every layer has.

    Attributes:
        num_layers: of the decoder.
        num_heads: attention heads of a layer.
        num_kv_heads: heads of keys and values of a layer.
        head_dim: components of a head.
    """

    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int

    @classmethod
    def of(cls, config: Any) -> AttentionShape:
        """Reads it from transformers' config of a text model; some families leave out what follows from the rest."""
        heads = config.num_attention_heads
        return cls(
            num_layers=config.num_hidden_layers,
            num_heads=heads,
            num_kv_heads=getattr(config, "num_key_value_heads", None) or heads,
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
        )

    @property
    def cached_numbers(self) -> int:
        """Components of a token's keys and values, in all layers."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim
