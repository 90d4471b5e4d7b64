"""Keys of `refine`: all that strategies of the package read; which strategy reads which stands in its file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from dgr_lightning.config.setting import NEVER, setting


@dataclass
class RefineConfig:
    """The refinement strategy: what the target model does to the source set before it is trained on it."""

    name: str = setting("", "short name, part of a run's directory name", private=False, hashed=NEVER)
    strategy: str = setting(
        "dgr", "how examples are rewritten: a file of refinement/strategies/, or your package.module:Class", private=False
    )
    seed: int = setting(0, "seed of the sampling noise; independent of seed", low=0)
    temperature: float = setting(0.6, "sampling temperature; 0 is greedy", low=0.0, high=10.0)
    top_p: float = setting(0.95, "nucleus sampling: the smallest set of tokens with this probability", above=0.0, high=1.0)
    top_k: int = setting(0, "sample from so many of the most probable tokens, before top_p; 0: from all", low=0, added=True)
    max_new_tokens: int = setting(8192, "tokens a rewrite may take, thinking included", low=1)
    tries: int = setting(1, "samples drawn: one after another until one is accepted, or all with select=nll", low=1)
    select: str = setting(
        "first",
        "first: the first accepted try; nll: of all tries, the accepted one likeliest to the target",
        choices=("first", "nll"),
    )
    thinking: bool = setting(True, "let the model think while it rewrites, and keep what follows the close of thinking")
    view: str = setting(
        "question", "content of the templates: question and part, or the part alone", choices=("question", "part")
    )
    parts: list[str] = setting(
        ["trace", "answer"], "parts that dgr rewrites; [trace] or [answer] alone is a control arm", private=False
    )
    trace_template: Optional[str] = setting(None, "text file with dgr's trace template; null: the shipped one", private=True)
    answer_template: Optional[str] = setting(None, "text file with dgr's answer template; null: the shipped one", private=True)
    response_template: Optional[str] = setting(
        None, "text file with the template of sdft or thinksafe; null: the shipped one", private=True
    )
    meta_thinking: Optional[str] = setting(
        None,
        "text file with meta-thinking phrases or /patterns/, one a line; null: the shipped one",
        private=True,
    )
    overthinking_tokens: int = setting(5000, "a kept text longer than this, in the target's tokens, has overthought", low=1)
    fallback_unit: str = setting(
        "example", "the unit of fallback when a part fails: the whole example, or the part", choices=("example", "part")
    )
    on_failure: str = setting(
        "keep", "an example whose rewrite failed: keep its original, or drop it", choices=("keep", "drop")
    )
    fraction: float = setting(1.0, "share of the set that is rewritten; the rest passes through", low=0.0, high=1.0)
    arm: str = setting("rewrites", "which half of the length-matched comparison this is", choices=("rewrites", "originals"))
    checks: list[str] = setting(
        ["unfinished", "empty", "think_marks", "overthinking", "meta_thinking", "refusal_lost", "refusal_gained"],
        "quality checks, in this order; the first that fails is the reason",
        private=False,
    )
    options: dict[str, Any] = setting({}, "of a strategy from outside, such as refine.options.sentences=3", private=True)
