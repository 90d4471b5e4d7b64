"""HarmBench's classifier (Mazeika et al., arXiv 2402.04249; Llama 2 13B, MIT): says whether a reply does what a prompt asks.

It has no chat template for the purpose: `prompts/harmbench.txt` is the prompt of text behaviours that the model's card gives
(`LLAMA2_CLS_PROMPT`, MIT; the copy compared is github.com/uw-nsl/safechain, `resp_eval.py`, commit 2353fca), with our names
for the placeholders, the trailing blank of its first rule included. It answers with one token, yes or no. The behaviour is the
plain prompt; behaviours with a context are not supported.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from dgr_lightning.prompts.templates import SHIPPED
from dgr_lightning.scoring.guard import Guard, Reading
from dgr_lightning.scoring.judge import HARMFUL


class HarmBench(Guard):
    """Reads the one word."""

    name: ClassVar[str] = "harmbench"
    note: ClassVar[str] = "Harm is judged by HarmBench's classifier, a guard model."
    says: ClassVar[frozenset[str]] = frozenset({HARMFUL})
    hub_id: ClassVar[str] = "cais/HarmBench-Llama-2-13b-cls"
    text: ClassVar[Path | None] = SHIPPED / "harmbench.txt"
    max_new_tokens: ClassVar[int] = 1

    @property
    def words(self) -> Mapping[str, bool]:
        """The two answers."""
        return {"no": False, "yes": True}

    def read(self, answer: str) -> Reading | None:
        """Returns what the answer says; None where it is neither yes nor no."""
        word = answer.strip().lower()
        return Reading(harmful=word == "yes") if word in self.words else None


JUDGE = HarmBench
