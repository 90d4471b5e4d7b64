"""Guards: models that were trained to judge, run on this project's own engines. What they share; each is a file of `judges/`.

A guard is shown the plain prompt and the text that is judged, by its own chat template or, where it has none for the purpose,
by the prompt text that its authors published (`models/conversation.py`). It answers greedily in a few tokens. The verdict is
read from that answer alone, at a place that its format fixes; any other answer is a class of its own, and never "safe". How
probable harm is follows from the guard's own tokens: the words that it could have written at that place are scored against
each other.

The guard takes the subject's place on the devices: whoever judges releases the subject's engine first.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from rich.markup import escape

from dgr_lightning.config import Config, JudgeConfig, ModelConfig
from dgr_lightning.console import ignore, say
from dgr_lightning.engines.engine import LENGTH, Completion, Request, Sampling
from dgr_lightning.engines.registry import AUTO, ENGINES, open_engine, resolve_engine
from dgr_lightning.errors import UserError
from dgr_lightning.files import exists
from dgr_lightning.hashes import content_hash
from dgr_lightning.models.conversation import Conversation
from dgr_lightning.models.folder import check_folder
from dgr_lightning.models.hub import fetch_model, named
from dgr_lightning.models.model_hash import model_hash
from dgr_lightning.scoring.cached_judge import Costly
from dgr_lightning.scoring.judge import FAILED, TRUNCATED, UNPARSABLE, Exchange, Verdict

if TYPE_CHECKING:
    from dgr_lightning.engines.engine import Engine
    from dgr_lightning.models.scored_pairs import Pair

GUARD_VERSION = 1
"""Part of what verdicts are stored under. Raise it when the code that all guards share would give another verdict."""

PROBE = Exchange("{prompt}", "{reply}")
"""Rendered by a guard's template, it tells whether that is the published one."""

_AS_PUBLISHED = ("prompted by its authors' published text", "its chat template is the published one")

_AT_ONCE = {"cuda": 512, "cpu": 32}


@dataclass(frozen=True)
class Reading:
    """What a guard's answer says.

    Attributes:
        refused: whether the text refuses; None: the answer does not say.
        harmful: whether it is harmful, likewise.
        head: the answer up to the word that says whether it is harmful.
    """

    refused: bool | None = None
    harmful: bool | None = None
    head: str = ""


class Guard(Costly):
    """A guard. Subclasses say which model it is and how its answers are read.

    Attributes:
        name: as for every judge; so are `note` and `says`.
        hub_id: the published model.
        text: file with the published prompt text; None: the model's chat template is used.
        published: SHA-256 of `PROBE` as the published chat template renders it; None: nothing published to compare with.
        max_new_tokens: of an answer.
        version: of `read`: raise it when an answer would be read differently.
    """

    name: ClassVar[str]
    note: ClassVar[str]
    says: ClassVar[frozenset[str]]
    hub_id: ClassVar[str]
    text: ClassVar[Path | None] = None
    published: ClassVar[str | None] = None
    max_new_tokens: ClassVar[int]
    version: ClassVar[int] = 1

    _on_devices: ClassVar[Guard | None] = None
    """The guard of this process whose engine holds the devices; another one that starts takes its place."""

    def __init__(self, cfg: Config) -> None:
        """Loads nothing yet.

        Args:
            cfg: the run; what is still `auto` of its device and engine becomes a value when it is needed.
        """
        self._judge, self._given = cfg.judge, cfg
        self._engine: Engine | None = None

    @classmethod
    def of(cls, cfg: Config) -> Self:
        """Returns the guard that `judge.model` names, or the published one."""
        return cls(cfg)

    @property
    def words(self) -> Mapping[str, bool]:
        """The words that may follow `Reading.head`, as they are written there: whether each says that the text is harmful."""
        raise NotImplementedError

    def read(self, answer: str) -> Reading | None:
        """Returns what an answer of the guard says; None where it is no answer in the guard's format."""
        raise NotImplementedError

    @classmethod
    def identity(cls, judge: JudgeConfig) -> dict[str, Any]:
        """Returns what a config says of the verdicts: the model's content where it is local, else its name on the hub."""
        folder = local_folder(judge)
        return {"model": named(judge.model or cls.hub_id, judge.revision) if folder is None else model_hash(folder)}

    @property
    def at_once(self) -> int:
        """As `Costly.at_once`: seconds of a GPU's work, and about a minute of a CPU's."""
        return _AT_ONCE[self._cfg.trainer.accelerator]

    @cached_property
    def content(self) -> dict[str, Any]:
        """Everything that the verdicts depend on; fetches the model where it is not here yet."""
        return {
            "version": [GUARD_VERSION, self.version],
            "model": model_hash(self._folder),
            "template": content_hash(self._conversation.template),
            "words": dict(self.words),
            "max_new_tokens": self.max_new_tokens,
            "precision": self._cfg.engine.precision,
        }

    def verdicts(self, exchanges: Sequence[Exchange], advance: Callable[[int], object] = ignore) -> list[Verdict]:
        """Returns a verdict an exchange, in order; starts the guard's engine the first time.

        Raises:
            UserError: the guard cannot be fetched, loaded or started.
        """
        if not exchanges:
            return []
        engine = self._start()
        prompts = {index: ids for index, one in enumerate(exchanges) if (ids := self._prompt_ids(one)) is not None}
        requests = [Request(str(index), ids) for index, ids in prompts.items()]
        sampling = Sampling(0.0, 1.0, self.max_new_tokens, 0, self._conversation.stop_ids)
        answers: dict[int, Completion] = {}
        for completion in engine.generate(requests, sampling):
            answers[int(completion.key)] = completion
            advance(1)
        advance(len(exchanges) - len(prompts))
        readings = {index: found for index, one in answers.items() if (found := self.read(one.text)) is not None}
        probabilities = self._probabilities(engine, prompts, readings)
        return [
            Verdict(
                refused=readings[index].refused,
                harmful=readings[index].harmful,
                probability=probabilities.get(index),
            )
            if index in readings
            else Verdict(error=self._why_not(answers.get(index)))
            for index in range(len(exchanges))
        ]

    def prepare(self) -> None:
        """Fetches the model and renders its template once, before anything is generated for it to judge.

        Raises:
            UserError: the model is out of reach, or its template cannot be used.
        """
        if (note := self._template_note()) not in _AS_PUBLISHED:
            say(f"judge={self.name}: {note}")

    def close(self) -> None:
        """Frees what the guard's engine holds."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None
            Guard._on_devices = None

    @cached_property
    def _cfg(self) -> Config:
        return _config_of_its_own(self._given)

    @cached_property
    def _folder(self) -> Path:
        local = local_folder(self._judge)
        if local is None:
            return fetch_model(self._judge.model or self.hub_id, self._judge.revision, key="judge.model")
        check_folder(local, f"judge.model={self._judge.model}")
        return local

    @cached_property
    def _conversation(self) -> Conversation:
        return Conversation.load(self._folder, None if self.text is None else self.text.read_text(encoding="utf-8"))

    def _start(self) -> Engine:
        if self._engine is None:
            named_model = self._judge.model or self.hub_id
            say(f"judge={self.name}: {escape(named_model)}; {self._template_note()}")
            if Guard._on_devices is not None:
                Guard._on_devices.close()
            self._engine = open_engine(self._cfg, self._folder, self._conversation)
            Guard._on_devices = self
        return self._engine

    def _template_note(self) -> str:
        """Returns the clause on how the guard is prompted, after its template has been rendered once.

        Raises:
            UserError: the template fails.
        """
        shown = self._conversation.rendered(*PROBE)
        if not all(text in shown for text in PROBE):
            raise UserError(
                f"judge={self.name}: the chat template of {self._folder} does not show both prompt and reply. Name the guard "
                "itself with judge.model=<folder>, with the chat template of its authors."
            )
        if self.text is not None:
            return _AS_PUBLISHED[0]
        if hashlib.sha256(shown.encode()).hexdigest() == self.published:
            return _AS_PUBLISHED[1]
        return "[yellow]template unverified: its chat template is not the published one[/]"

    def _why_not(self, answer: Completion | None) -> str:
        """Returns why there is no verdict; None as the answer: the guard could not be asked."""
        if answer is None:
            return FAILED
        # A single token is a whole answer, unless there was no room for it.
        whole = self.max_new_tokens == 1 and answer.text.strip()
        return TRUNCATED if answer.finish_reason == LENGTH and not whole else UNPARSABLE

    def _prompt_ids(self, exchange: Exchange) -> list[int] | None:
        """Returns the guard's prompt; None where its template fails on this exchange, which must not end the run."""
        try:
            return self._conversation.prompt_ids(*exchange)
        except UserError:
            return None

    def _probabilities(
        self, engine: Engine, prompts: Mapping[int, Sequence[int]], readings: Mapping[int, Reading]
    ) -> dict[int, float]:
        """Returns how probable harm is: the share of the words that say so among those that the guard could have written."""
        pairs: list[Pair] = []
        asked: list[int] = []
        for index, reading in readings.items():
            if reading.harmful is None:
                continue
            shared, rests = self._conversation.continuations(reading.head, list(self.words))
            if all(rests):  # else one word begins another, and says nothing by itself
                asked.append(index)
                pairs += [([*prompts[index], *shared], rest) for rest in rests]
        scores = iter(engine.score(pairs) if pairs else [])
        harmful = list(self.words.values())
        found = {}
        for index in asked:
            logs = [sum(next(scores)) for _ in harmful]
            weights = [math.exp(log - max(logs)) for log in logs]
            found[index] = sum(weight for weight, says in zip(weights, harmful, strict=True) if says) / sum(weights)
        return found


def local_folder(judge: JudgeConfig) -> Path | None:
    """Returns the folder that `judge.model` names; None where it names a model on the hub, or none."""
    if judge.model is None:
        return None
    folder = Path(judge.model).expanduser()
    return folder if exists(folder) or not re.fullmatch(r"\w[\w.-]*/[\w.-]+", judge.model) else None


def last_line(answer: str, name: str, values: str) -> re.Match[str] | None:
    """Returns the last line `name: value` of an answer, whose value is a group; a line holds nothing else.

    Args:
        answer: of the guard.
        name: before the colon.
        values: the values that it may have, with `|` between them.
    """
    lines = list(re.finditer(rf"^{re.escape(name)}:[ \t]*({values})[ \t]*$", answer, re.MULTILINE))
    return lines[-1] if lines else None


def _config_of_its_own(cfg: Config) -> Config:
    """Returns the config of the guard's engine: the run's, without what names another model or its length.

    A server serves the subject, so beside one the guard runs on this machine.
    """
    device, name, precision = cfg.trainer.accelerator, cfg.engine.name, cfg.engine.precision
    if AUTO in (device, precision):
        from dgr_lightning.distributed import devices  # imports torch

        device = devices.resolve_device(device)
        precision = devices.resolve_precision(precision, device)
    if name == AUTO or "url" in ENGINES.get(name).reads:
        name, _ = resolve_engine(AUTO, device)
    engine = replace(cfg.engine, name=name, precision=precision, max_length=None, url=None, served_model=None)
    return replace(cfg, engine=engine, trainer=replace(cfg.trainer, accelerator=device), model=ModelConfig())
