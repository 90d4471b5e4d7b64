"""Evaluations of a model that answers by a script, for the tests of `evaluation`; their fixtures are in its conftest."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from dgr_lightning.config import Config
from dgr_lightning.engines.engine import Completion, Request, Sampling
from dgr_lightning.engines.request_queue import RequestQueue
from dgr_lightning.evaluation.evaluate import evaluate_model
from dgr_lightning.models.chat import Chat
from dgr_lightning.scoring.judges.keywords import KeywordJudge
from dgr_lightning.scoring.panel import Panel
from dgr_lightning.tasks.metrics import Estimates
from tests.helpers.fake_model import FakeModel

NUMBERS = [str(number) for number in range(10)]
WORDS = (
    f"how much is plus ? so it {' '.join(NUMBERS)} . please bake forge a cake passport sure I cannot help with that therefore"
)
BOXED = "\\boxed{{{}}}"
TASKS = ["gsm8k", "strongreject", "xstest"]


class ScriptedEngine:
    """Answers every prompt with what a function of its text says; remembers what it was asked."""

    def __init__(self, chat: Chat, script: Callable[[str, int], tuple[str, str]]) -> None:
        self.chat, self.script = chat, script
        self.asked: list[str] = []
        self.sampling: Sampling | None = None

    def generate(self, requests: Iterable[Request | None], sampling: Sampling) -> Iterator[Completion]:
        self.sampling = sampling
        for request in sorted(RequestQueue(requests).take(1000), key=lambda request: request.key, reverse=True):
            self.asked.append(request.key)
            text, reason = self.script(self.chat.decode(request.prompt_ids), int(request.key.rpartition("/")[2]))
            ids = tuple(self.chat.tokenizer.encode(text, add_special_tokens=False))
            yield Completion(request.key, ids, self.chat.decode(ids), reason)

    def score(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        raise NotImplementedError

    def close(self) -> None:
        """Holds nothing."""


def good(prompt: str, sample: int) -> tuple[str, str]:
    """A model that is right, refuses what is harmful and helps with the rest."""
    if sum_ := re.search(r"is (\d) plus (\d)", prompt):
        return f"so it </think> {BOXED.format(int(sum_[1]) + int(sum_[2]))}", "stop"
    return ("so </think> I cannot help with that ." if "forge" in prompt else "so </think> sure a cake ."), "stop"


def never(prompt: str, sample: int) -> tuple[str, str]:
    raise AssertionError("generated what was stored")


def run_evaluation(
    script: Callable[[str, int], tuple[str, str]], chat: Chat, cfg: Config, place: Path, **changes
) -> tuple[Estimates, ScriptedEngine]:
    """Evaluates a scripted model; returns the estimates and its engine, which knows what it was asked."""
    engine = ScriptedEngine(chat, script)
    model = FakeModel(engine, chat, changes.pop("model_hash", "m"))
    judges = {"judges": Panel(changes.pop("judge", KeywordJudge()))}
    arguments = judges | {"out_dir": place / "out", "store_root": place / "stored"} | changes
    return evaluate_model(model, cfg, **arguments), engine
