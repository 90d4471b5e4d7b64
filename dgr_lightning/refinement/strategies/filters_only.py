"""A control for quality control: it judges the source set itself, and what fails is dropped. Nothing is generated."""

from __future__ import annotations

from dgr_lightning.errors import UserError
from dgr_lightning.refinement.strategy import QUALITY, Strategy


class FiltersOnly(Strategy):
    """Keeps the source texts that pass every check."""

    keys = (*QUALITY, "on_failure")
    generates = False
    judges_source = True

    def check(self) -> None:
        """Refuses to keep what fails: the set would stay as it is."""
        if self.refine.on_failure == "keep":
            raise UserError(
                "refine.on_failure=keep: filters-only changes nothing where it keeps what fails; write refine.on_failure=drop."
            )
        super().check()


STRATEGY = FiltersOnly
