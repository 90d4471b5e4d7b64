"""DGR, of which as many rewrites or originals are kept as can be paired by length: a control for the length of the texts."""

from __future__ import annotations

from dgr_lightning.refinement.strategies.dgr import DGR, REWRITING


class LengthMatched(DGR):
    """An example falls back as a whole, and one whose rewrite failed is in neither arm."""

    keys = (*REWRITING, "arm")
    pairs_by_length = True


STRATEGY = LengthMatched
