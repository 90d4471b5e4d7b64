"""In-training evaluation (`probes`): the current weights answer problems that evaluation never uses.

The same code scores the answers as in the evaluation, so that a curve and a result mean the same; a curve rests on fewer
problems. What is the answer of an output is as there (`evaluation/estimates.py`).
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.fsdp import FSDPModule

from dgr_lightning.config import Config, ProbesConfig
from dgr_lightning.config.setting import AUTO
from dgr_lightning.console import say
from dgr_lightning.distributed.devices import resolve_precision
from dgr_lightning.distributed.fsdp import uncompiled, unsharded
from dgr_lightning.distributed.ranks import Ranks
from dgr_lightning.engines.engine import STOP, Request, Sampling
from dgr_lightning.engines.transformers.engine import TransformersEngine, why_undecodable
from dgr_lightning.engines.transformers.kv_cache import free_bytes
from dgr_lightning.errors import UserError
from dgr_lightning.models.thinking import Parsed
from dgr_lightning.models.weights import linear_weights_in, outline
from dgr_lightning.scoring.judge import Judge
from dgr_lightning.scoring.panel import Panel
from dgr_lightning.scoring.scorer import Score, Scorer
from dgr_lightning.tasks.loader import load_problems
from dgr_lightning.tasks.metrics import KINDS
from dgr_lightning.tasks.registry import TASKS
from dgr_lightning.tasks.task import PROBE, Problem, Task
from dgr_lightning.training.optimizer import OPTIMIZERS
from dgr_lightning.training.probe_memory import ProbeSize, future_state_bytes, needed_bytes
from dgr_lightning.writing import readable_size

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from dgr_lightning.models.chat import Chat


class Probes:
    """In-training evaluation for `fit.fit`: called with the live model and the step, returns one point of every curve."""

    def __init__(self, cfg: Config, chat: Chat, judge: Judge) -> None:
        """Loads `probes.size` problems of each task's probe split: the same in every run, whatever its seed.

        Args:
            cfg: `probes`, `engine`, `sft` and `trainer` are read.
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
        self._cfg, self._chat, self._judge = cfg, chat, judge
        self._batch_size = cfg.engine.num_sequences
        self._checked = self._skipped = False

    def __call__(self, model: PreTrainedModel, step: int) -> dict[str, float]:
        """Returns `probe/<task>/<metric>` of every task, and `probe/<headline>`, the average over the tasks of a kind.

        Ranks share the problems: each answers its part with the whole model, gathered once. Collective. Where there is not
        enough memory, this probe and all later ones are left out, with a warning.

        Args:
            model: the model in training; left in the modes in which it was.
            step: optimizer steps done; the problems are the same at every step.

        Raises:
            UserError: there is not enough memory, and `sft.select` needs the curve.
        """
        ranks = Ranks.here()
        if not self._checked and not self._skipped:
            self._checked, why = True, self._why_too_large(model, step, ranks)
            if why is not None:
                self._skip(why)
        if self._skipped:
            return {}
        parts = ranks.all_gather(self._answers(model, self._requests[ranks.rank :: ranks.size]))
        answers = {key: answer for part in parts if part is not None for key, answer in part.items()}
        if len(answers) < len(self._requests):
            self._skip(f"the probe at step {step} ran out of memory, one output at a time")
            return {}
        return self._rates(answers)

    def _answers(self, model: PreTrainedModel, requests: Sequence[Request]) -> dict[str, Parsed] | None:
        """Returns this rank's answers by key; None where memory is not enough for one output at a time."""
        # Decoding has another shape at every token, and would exhaust the compiler's limit of recompilations for the training.
        try:
            with unsharded(model, self._cfg.trainer.precision) as whole, uncompiled(model):
                while self._batch_size:
                    # Weights that are bf16 (frozen ones, or shards gathered in it) gain nothing from fp32.
                    precision = "bf16" if whole.dtype == torch.bfloat16 else self._precision(model)
                    with suppress(torch.OutOfMemoryError), _cast(whole, precision):
                        return self._decoded(TransformersEngine(whole, self._chat, precision, self._batch_size), requests)
                    # Only here, behind the exception that held it, is the memory free again.
                    if torch.cuda.is_initialized():
                        torch.cuda.empty_cache()
                    self._batch_size = min(self._batch_size, len(requests)) // 2
        except torch.OutOfMemoryError:  # of gathering the weights
            pass
        return None

    def _decoded(self, engine: TransformersEngine, requests: Sequence[Request]) -> dict[str, Parsed]:
        return {
            completion.key: self._chat.parse(completion.text, finished=completion.finish_reason == STOP)
            for completion in engine.generate(requests, self._sampling)
        }

    def _rates(self, answers: Mapping[str, Parsed]) -> dict[str, float]:
        by_task: dict[str, float] = {}
        by_kind: defaultdict[str, list[float]] = defaultdict(list)
        with Scorer(Panel(self._judge)) as scorer:
            for task, problems in self._tasks:
                scores = scorer.scores(task, problems, [answers[_key(task, problem)] for problem in problems])
                by_task[f"probe/{task.name}/{KINDS[task.kind].metric}"] = share = sum(map(_counts, scores)) / len(scores)
                by_kind[task.kind].append(share)
        headlines = {
            f"probe/{kind.headline}": sum(by_kind[name]) / len(by_kind[name]) for name, kind in KINDS.items() if name in by_kind
        }
        return headlines | by_task

    def _precision(self, model: PreTrainedModel) -> str:
        return resolve_precision(self._cfg.engine.precision, model.device.type)

    def _why_too_large(self, model: PreTrainedModel, step: int, ranks: Ranks) -> str | None:
        """Returns why a probe does not fit beside the training on every rank's device, as a clause; None where it does."""
        free = free_bytes(model.device)
        needed = states = 0
        if free < sys.maxsize:
            dtype = torch.bfloat16 if self._precision(model) == "bf16" else torch.float32
            rows = min(self._batch_size, -(-len(self._requests) // ranks.size))
            longest = max((len(request.prompt_ids) for request in self._requests), default=1)
            size = ProbeSize(rows, longest, self._sampling.max_new_tokens)
            needed = sum(needed_bytes(model, self._cfg.trainer.precision, dtype, size))
            # After a resume the states are there, and not free.
            states = 0 if step else future_state_bytes(model, OPTIMIZERS.get(self._cfg.sft.optimizer))
        rooms = ranks.all_gather((free - states - needed, needed, free, states))
        room, needed, free, states = min(rooms)
        if room >= 0:
            return None
        coming = f", of which the optimizer's states will take {readable_size(states)}" if states else ""
        return f"a probe needs {readable_size(needed)} on every device, and {readable_size(free)} are free{coming}"

    def _skip(self, why: str) -> None:
        """Leaves out all further probes, and says why.

        Raises:
            UserError: `sft.select` needs them.
        """
        self._skipped = True
        probes = self._cfg.probes
        smaller = f"a smaller probes.max_new_tokens (now {probes.max_new_tokens}) or probes.size (now {probes.size})"
        if self._cfg.sft.select is not None:
            raise UserError(
                f"sft.select={self._cfg.sft.select}: {why}. Write {smaller}, more devices under trainer.strategy=fsdp, or no "
                "sft.select."
            )
        say(f"[yellow]probes are left out from here on: {why}; {smaller} takes less[/]")


def _cast(model: PreTrainedModel, precision: str) -> AbstractContextManager[None]:
    """Returns the context in which a graph of decoding steps reads weights in bf16, instead of casting them at every step."""
    autocast = precision == "bf16" and model.dtype == torch.float32
    cast = autocast and model.device.type == "cuda" and not isinstance(model, FSDPModule)
    return linear_weights_in(model, torch.bfloat16) if cast else nullcontext()


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


def _counts(score: Score) -> bool:
    return bool(score.verdict)
