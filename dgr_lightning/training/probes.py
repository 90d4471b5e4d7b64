"""In-training evaluation (`probes`): the current weights answer problems that evaluation never uses.

The same code scores the answers as in the evaluation, so that a curve and a result mean the same; a curve rests on fewer
problems. What is the answer of an output is as there (`evaluation/evaluate.py`).
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dgr_lightning.config import Config, ProbesConfig
from dgr_lightning.config.setting import AUTO
from dgr_lightning.distributed.devices import resolve_precision
from dgr_lightning.distributed.fsdp import unsharded
from dgr_lightning.distributed.ranks import Ranks
from dgr_lightning.engines.engine import STOP, Request, Sampling
from dgr_lightning.engines.transformers.engine import TransformersEngine, why_undecodable
from dgr_lightning.errors import UserError
from dgr_lightning.models.weights import outline
from dgr_lightning.scoring.judge import Judge
from dgr_lightning.scoring.scorer import Scorer
from dgr_lightning.tasks.loader import load_problems
from dgr_lightning.tasks.metrics import KINDS
from dgr_lightning.tasks.registry import TASKS
from dgr_lightning.tasks.task import PROBE, Problem, Task

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from dgr_lightning.models.chat import Chat


class Probes:
    """In-training evaluation for `fit.fit`: called with the live model and the step, returns one point of every curve."""

    def __init__(self, cfg: Config, chat: Chat, judge: Judge) -> None:
        """Loads `probes.size` problems of each task's probe split: the same in every run, whatever its seed.

        Args:
            cfg: `probes`, `engine` and `trainer.precision` are read.
            chat: tokenizer and template of the model that is trained.
            judge: decides whether an answer refuses.

        Raises:
            UserError: a task's problems cannot be read.
        """
        self._tasks = _load_tasks(cfg)
        self._requests = [
            Request(_key(task, problem), chat.prompt_ids(problem.prompt))
            for task, problems in self._tasks
            for problem in problems
        ]
        self._sampling = Sampling(
            # The noise of a problem is the same at every step and in every run: curves differ by their weights.
            seed=0,
            max_new_tokens=cfg.probes.max_new_tokens,
            stop_ids=chat.stop_ids,
            **_settled(cfg.probes),
        )
        self._engine, self._precision, self._compiled = cfg.engine, cfg.trainer.precision, cfg.trainer.compile
        self._chat = chat
        self._judge = judge

    def __call__(self, model: PreTrainedModel, step: int) -> dict[str, float]:
        """Returns `probe/<task>/<metric>` of every task, and `probe/<headline>`, the average over the tasks of a kind.

        Ranks share the problems: each answers its part with the whole model, gathered once. Collective.

        Args:
            model: the model in training; left in the modes in which it was.
            step: not used; the problems are the same at every step.
        """
        ranks = Ranks.here()
        wanted = resolve_precision(self._engine.precision, model.device.type)
        # Decoding has another shape at every token, and would exhaust the compiler's limit of recompilations for the training.
        stance = torch.compiler.set_stance("force_eager") if self._compiled else nullcontext()
        with unsharded(model, self._precision) as whole, stance:
            # Weights that are bf16 (frozen ones, or shards gathered in it) gain nothing from fp32.
            precision = "bf16" if whole.dtype == torch.bfloat16 else wanted
            engine = TransformersEngine(whole, self._chat, precision, self._engine.batch_size)
            own = {
                completion.key: self._chat.parse(completion.text, finished=completion.finish_reason == STOP).answer
                for completion in engine.generate(self._requests[ranks.rank :: ranks.size], self._sampling)
            }
        answers = {key: answer for part in ranks.all_gather(own) for key, answer in part.items()}
        by_task: dict[str, float] = {}
        by_kind: defaultdict[str, list[float]] = defaultdict(list)
        with Scorer(self._judge) as scorer:
            for task, problems in self._tasks:
                verdicts = scorer.verdicts(task, problems, [answers[_key(task, problem)] for problem in problems])
                by_task[f"probe/{task.name}/{KINDS[task.kind].metric}"] = share = sum(verdicts) / len(verdicts)
                by_kind[task.kind].append(share)
        headlines = {
            f"probe/{kind.headline}": sum(by_kind[name]) / len(by_kind[name]) for name, kind in KINDS.items() if name in by_kind
        }
        return headlines | by_task


def check_probes(folder: Path, cfg: Config, chat: Chat) -> None:
    """Checks, without loading a weight, that in-training evaluation can decode with a model: before anything is generated.

    Probes decode with the transformers engine whatever `engine.name` is, since they need the weights in training.

    Args:
        folder: of the model.
        cfg: as for `Probes`.
        chat: as for `Probes`.

    Raises:
        UserError: it cannot, because of the model's attention or because a prompt leaves no position for an output.
    """
    model = outline(folder, cfg.model.trust_remote_code)
    if model is None:
        return
    prompts = [chat.prompt_ids(problem.prompt) for _, problems in _load_tasks(cfg) for problem in problems]
    if why := why_undecodable(model, max(map(len, prompts), default=0)):
        raise UserError(
            f"probes.every={cfg.probes.every}: {why}, and probes decode with it, whatever engine.name is. Write probes.every=0 "
            "to train without curves, or take another model."
        )


def _load_tasks(cfg: Config) -> list[tuple[Task, list[Problem]]]:
    """Returns the tasks of the probes with `probes.size` problems each."""
    tasks = {name: TASKS[name] for name in cfg.probes.tasks}
    return [
        (task, load_problems(name, split=PROBE, path=cfg.probes.path.get(task.name), limit=cfg.probes.size))
        for name, task in tasks.items()
    ]


def _settled(probes: ProbesConfig) -> dict[str, Any]:
    chosen = {name: getattr(probes, name) for name in ("temperature", "top_p", "top_k")}
    assert AUTO not in chosen.values(), "pipeline/probe_settings.py gives probes.temperature a value"
    return chosen


def _key(task: Task, problem: Problem) -> str:
    return f"{task.name}/{problem.id}"
