"""The curves during training: what the current weights answer, greedily, to problems that evaluation never uses.

Graded and judged by the same code as the evaluation, so that a curve and a result mean the same; only smaller. An output whose
thinking never ends has no answer: wrong, not refused, and in the denominator.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch

from dgr_lightning.config import Config
from dgr_lightning.distributed.devices import resolve_precision
from dgr_lightning.distributed.fsdp import unsharded
from dgr_lightning.distributed.ranks import Ranks
from dgr_lightning.engines.engine import Request, Sampling
from dgr_lightning.engines.transformers.engine import TransformersEngine
from dgr_lightning.scoring.judges.keywords import KeywordJudge
from dgr_lightning.scoring.maths import Grader
from dgr_lightning.tasks.loader import load_problems
from dgr_lightning.tasks.metrics import HEADLINES, METRICS
from dgr_lightning.tasks.registry import TASKS
from dgr_lightning.tasks.task import PROBE, Problem

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from dgr_lightning.models.chat import Chat


class Probes:
    """A probe for `fit.fit`: called with the live model and the step, returns one point of every curve."""

    def __init__(self, cfg: Config, chat: Chat, judge: KeywordJudge) -> None:
        """Loads the problems: `probes.size` of each task's probe split, the same in every run, whatever its seed.

        Args:
            cfg: `probes`, `engine` and `trainer.precision` are read.
            chat: tokenizer and template of the model that is trained.
            judge: says whether an answer refuses.

        Raises:
            UserError: a task's problems cannot be had.
        """
        self._problems: dict[str, list[Problem]] = {
            task: load_problems(task, split=PROBE, path=cfg.probes.path.get(task), limit=cfg.probes.size)
            for task in cfg.probes.tasks
        }
        self._requests = [
            Request(f"{task}/{problem.id}", chat.prompt_ids(problem.prompt))
            for task, problems in self._problems.items()
            for problem in problems
        ]
        self._sampling = Sampling(
            temperature=0.0, top_p=1.0, max_new_tokens=cfg.probes.max_new_tokens, seed=0, stop_ids=chat.stop_ids
        )
        self._engine, self._precision, self._compiled = cfg.engine, cfg.trainer.precision, cfg.trainer.compile
        self._chat = chat
        self._judge = judge

    def __call__(self, model: PreTrainedModel, step: int) -> dict[str, float]:
        """Returns `probe/<task>/<metric>` of every task, and `probe/<headline>`, the average over the tasks of a kind.

        Ranks share the problems: each answers its part with the whole model, gathered once. Collective.

        Args:
            model: the model in training; its modes are as they were afterwards.
            step: not used; what is asked is the same at every step.
        """
        ranks = Ranks.here()
        wanted = resolve_precision(self._engine.precision, model.device.type)
        # Decoding has another shape at every token: it would use up what the compiler is willing to make for the training.
        stance = torch.compiler.set_stance("force_eager") if self._compiled else nullcontext()
        with unsharded(model, self._precision) as whole, stance:
            # Weights that are bf16 (frozen ones, or shards gathered in it) have nothing finer to offer.
            precision = "bf16" if whole.dtype == torch.bfloat16 else wanted
            engine = TransformersEngine(whole, self._chat, precision, self._engine.batch_size)
            own = {
                completion.key: self._chat.parse(completion.text).answer
                for completion in engine.generate(self._requests[ranks.rank :: ranks.size], self._sampling)
            }
        answers = {key: answer for part in ranks.all_gather(own) for key, answer in part.items()}
        by_task: dict[str, float] = {}
        by_kind: defaultdict[str, list[float]] = defaultdict(list)
        with Grader() as grader:
            for task, problems in self._problems.items():
                kind = TASKS[task].kind
                hits = [self._verdict(problem, answers[f"{task}/{problem.id}"], grader) for problem in problems]
                by_task[f"probe/{task}/{METRICS[kind]}"] = share = sum(hits) / len(hits)
                by_kind[kind].append(share)
        headlines = {
            f"probe/{name}": sum(by_kind[kind]) / len(by_kind[kind]) for kind, name in HEADLINES.items() if kind in by_kind
        }
        return headlines | by_task

    def _verdict(self, problem: Problem, answer: str | None, grader: Grader) -> bool:
        """Whether the answer is right, for a reasoning problem; else whether it refuses."""
        return self._judge.refuses(answer) if problem.gold is None else grader.grade(answer, problem.gold)
