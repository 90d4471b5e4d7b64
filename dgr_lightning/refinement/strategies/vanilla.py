"""No refinement: the source set as it is, the baseline of Safety Tax (arXiv 2503.00555)."""

from __future__ import annotations

from dgr_lightning.refinement.strategy import Strategy


class Vanilla(Strategy):
    """Passes every example through."""

    generates = False


STRATEGY = Vanilla
