"""A scripted model and a chat of one token a character: refinement in tests, without weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from dgr_lightning.config import Config, EngineConfig, RefineConfig
from dgr_lightning.engines.engine import LENGTH, STOP, Completion, Request, Sampling
from dgr_lightning.engines.request_queue import RequestQueue
from dgr_lightning.example import Example
from dgr_lightning.models.chat import Parsed
from dgr_lightning.refinement.refine import Refinement, refine_set
from dgr_lightning.scoring.judge import Exchange, Verdict

END = 0


class CharacterTokenizer:
    """One token a character."""

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        return [ord(character) for character in text]


class CharacterChat:
    """A chat whose ids are code points; prompts end in an opening mark, which thinking=False closes."""

    identity: ClassVar = {"chat_style": "think"}
    thinks = True
    stop_ids = (END,)
    pad_id = END
    tokenizer = CharacterTokenizer()

    def prompt_ids(self, prompt: str, thinking: bool = True) -> list[int]:
        return [ord(character) for character in f"user: {prompt} <think>" + ("" if thinking else "</think>")]

    def target_ids(self, trace: str, answer: str) -> list[int]:
        return [*map(ord, f"{trace}</think>{answer}"), END]

    def part_spans(self, ids: Sequence[int]) -> tuple[range, range]:
        close = "".join(map(chr, ids)).index("</think>")
        return range(close), range(close + len("</think>"), len(ids) - 1)

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))

    def parse(self, text: str, thinking: bool = True, *, finished: bool = False) -> Parsed:
        if not thinking:
            return Parsed("", text.strip())
        trace, mark, answer = text.partition("</think>")
        return Parsed(trace.strip(), answer.strip() if mark else None)

    def has_marks(self, text: str) -> bool:
        return "<think>" in text or "</think>" in text


class Judge:
    """Refusals open with "I cannot"."""

    content = ("I cannot",)
    says = frozenset({"refused"})

    def verdicts(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        return [Verdict(refused=exchange.answer.startswith("I cannot")) for exchange in exchanges]

    def close(self) -> None:
        pass


Script = Callable[[str, str], str | tuple[str, str]]


@dataclass
class ScriptedEngine:
    """Writes what a script says: (request key, prompt text) → text, or (text, finish reason). Finishes last things first."""

    script: Script
    fail_after: int | None = None
    built: int = 0
    requests: list[Request] = field(default_factory=list)
    samplings: list[Sampling] = field(default_factory=list)
    scored: list[tuple[Sequence[int], Sequence[int]]] = field(default_factory=list)

    def __call__(self) -> ScriptedEngine:
        self.built += 1
        return self

    def generate(self, requests: Iterable[Request | None], sampling: Sampling) -> Iterator[Completion]:
        self.samplings.append(sampling)
        queue = RequestQueue(requests)
        while not queue.exhausted:
            for request in reversed(queue.take(1000)):
                if self.fail_after is not None and len(self.requests) >= self.fail_after:
                    raise KeyboardInterrupt
                self.requests.append(request)
                written = self.script(request.key, "".join(map(chr, request.prompt_ids)))
                text, reason = written if isinstance(written, tuple) else (written, STOP)
                yield Completion(request.key, tuple(map(ord, text)), text, reason)

    def score(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        """A text is the likelier the more often it says "like"."""
        self.scored += pairs
        return [[-1.0 / (1 + "".join(map(chr, target)).count("like"))] * len(target) for _, target in pairs]

    def close(self) -> None:
        """Holds nothing."""

    @property
    def keys(self) -> list[str]:
        return [request.key for request in self.requests]

    @property
    def prompts(self) -> dict[str, str]:
        return {request.key: "".join(map(chr, request.prompt_ids)) for request in self.requests}


def good(key: str, prompt: str) -> str:
    """Thinks, then gives a new trace, or a new refusal."""
    identity, part, _ = key.rsplit("/", 2)
    return "so be it </think> " + (f"new trace of {identity}" if part == "trace" else f"I cannot, says {identity}")


def failing(faulty: dict[str, str | tuple[str, str]]) -> Script:
    """A good model but for the keys in `faulty`."""
    return lambda key, prompt: faulty.get(key) or good(key, prompt)


def example(number: int, **changes: str) -> Example:
    texts = {"trace": f"old trace {number}", "answer": f"I cannot do {number}."}
    return Example(
        **({"id": f"set-{number}", "prompt": f"Question {number}?", "label": "harmful", "source": "set"} | texts | changes)
    )


SET = [example(number) for number in range(4)]
META = "hm </think> in my own words : no"


def config(**changes) -> Config:
    cfg = Config(refine=RefineConfig(**changes), engine=EngineConfig(name="transformers", precision="fp32"))
    cfg.refine.overthinking_tokens = min(cfg.refine.overthinking_tokens, 200)
    return cfg


@dataclass
class Target:
    """The target model as refinement knows it."""

    engine: Callable[[], Any]
    model_hash: str = "m"
    chat: Any = field(default_factory=CharacterChat)


def refined(
    cache: Path, engine: ScriptedEngine, examples: Sequence[Example] = SET, model_hash: str = "m", **changes
) -> Refinement:
    return refine_set(examples, config(**changes), Target(engine, model_hash), Judge(), cache)


def whole(refinement: Refinement) -> tuple:
    return list(refinement.examples), refinement.stats, list(refinement.verdicts())


def texts(refinement: Refinement) -> dict[str, tuple[str, str]]:
    return {row.id: (row.trace, row.answer) for row in refinement.examples}


def outcomes(refinement: Refinement) -> dict[str, tuple[bool, str | None]]:
    return {row.id: (row.refined, row.reason) for row in refinement.examples}


FAULTS = {
    "unfinished": ("well </think> They want", LENGTH),
    "empty": ("I never close my thinking", STOP),
    "think_marks": ("well </think> a </think> b", STOP),
    "overthinking": ("well </think> " + "again " * 50, STOP),
    "meta_thinking": (META, STOP),
}
