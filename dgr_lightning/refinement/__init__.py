"""Refinement: the target model puts somebody else's traces and answers into its own words."""

from dgr_lightning.refinement.outcome import Outcome, Refinement, RefinementStats, show_refinement
from dgr_lightning.refinement.quality import check_quality_config
from dgr_lightning.refinement.run import refine

__all__ = ["Outcome", "Refinement", "RefinementStats", "check_quality_config", "refine", "show_refinement"]
