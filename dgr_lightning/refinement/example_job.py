"""One example on its way through the steps of a strategy: its requests, what is accepted, why a part falls back."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from dgr_lightning.config import RefineConfig
from dgr_lightning.example import Example
from dgr_lightning.generation.jobs import Job, Needs, StoredRequest
from dgr_lightning.hashes import content_hash
from dgr_lightning.models.chat import Chat
from dgr_lightning.models.scored_pairs import Pair, answer_pair, trace_pair
from dgr_lightning.prompts.templates import ANSWER, TRACE
from dgr_lightning.refinement.deferred_judge import Pending
from dgr_lightning.refinement.outcome import Outcome
from dgr_lightning.refinement.quality import Judgement
from dgr_lightning.refinement.stored_step import StoredStep


def generation_key(id_: str, part: str, attempt: int, content: str, trace: str | None = None) -> str:
    """Returns what a completion is stored under within its generation hash: `<id>/<part>/<try>/<content>`.

    Args:
        id_: of the example.
        part: the step.
        attempt: number of the try, from 0.
        content: content hash of the example.
        trace: where the prompt shows a trace that was rewritten before, the generation hash and the key of that trace. So an
            answer is never reused for a trace that it was not made for: when a changed check accepts another trace, another
            answer is generated.
    """
    return f"{id_}/{part}/{attempt}/{content if trace is None else content_hash(content, trace)}"


@dataclass(frozen=True)
class ExampleJob:
    """The job of one example.

    Attributes:
        example: the source example.
        outcome: what becomes of it; `run` fills it in.
        steps: part → step, in order.
        refine: `tries`, `select`, `thinking` and `fallback_unit` are read.
        chat: the target's chat format.
    """

    example: Example
    outcome: Outcome
    steps: Mapping[str, StoredStep]
    refine: RefineConfig
    chat: Chat

    def run(self) -> Job:
        """Takes the example through all steps, try by try; ends early where a verdict is not there yet."""
        self.outcome.clear()
        try:
            yield from self._steps()
        except Pending:
            return

    def _steps(self) -> Job:
        for step in self.steps.values():
            if not step.step.applies(self.example):
                continue
            wanted = [self._wanted(step, attempt) for attempt in range(self.refine.tries)]
            accepted = yield from self._likeliest(step, wanted) if self.refine.select == "nll" else self._first(step, wanted)
            if accepted is not None:
                self.outcome.accepted[step.part] = accepted
                continue
            reason = step.judgement(self.example, wanted[-1].key).reason
            assert reason is not None, "what passes every check is accepted"
            self.outcome.reasons[step.part] = reason
            # A whole example falls back with its trace, so its answer need not be generated.
            if self.refine.fallback_unit == "example":
                break

    def texts(self) -> dict[str, str]:
        """Returns trace and answer as accepted so far: the source's where nothing was."""
        texts = {TRACE: self.example.trace, ANSWER: self.example.answer}
        for part, key in self.outcome.accepted.items():
            texts |= self.steps[part].candidate(self.example, key).texts
        return texts

    def trace(self) -> str | None:
        """Returns what identifies the accepted trace; None where it is the source's."""
        key = self.outcome.accepted.get(TRACE)
        return None if key is None else f"{self.steps[TRACE].completions.folder.name}/{key}"

    @cached_property
    def _content(self) -> str:
        example = self.example
        return content_hash(example.prompt, example.trace, example.answer, example.label)

    def _wanted(self, step: StoredStep, attempt: int) -> StoredRequest:
        example = self.example
        trace = self.trace() if step.step.sees_trace else None

        def prompt_ids() -> list[int]:
            shown = self.texts()[TRACE] if trace is not None else example.trace
            return self.chat.prompt_ids(step.step.prompt(example, shown), self.refine.thinking)

        key = generation_key(example.id, step.part, attempt, self._content, trace)
        # The noise does not follow from content, so that two templates are sampled with the same random numbers.
        noise = f"{example.id}/{step.part}/{attempt}"
        return StoredRequest(step.completions, key, noise, prompt_ids)

    def _first(self, step: StoredStep, wanted: Sequence[StoredRequest]) -> Generator[Needs, list[list[float]], str | None]:
        """Draws one try after another; returns the first that passes every check, None where none does."""
        for one in wanted:
            yield [one]
            self.outcome.tried.setdefault(step.part, []).append(one.key)
            if step.judgement(self.example, one.key).reason is None:
                return one.key
        return None

    def _likeliest(self, step: StoredStep, wanted: list[StoredRequest]) -> Generator[Needs, list[list[float]], str | None]:
        """Draws all tries; returns the one with the lowest NLL per token of those that pass every check, None where none does.

        Only tries between which there is a choice are scored.
        """
        yield wanted
        keys = [one.key for one in wanted]
        self.outcome.tried[step.part] = keys
        good = [key for key, judgement in self._judgements(step, keys) if judgement.reason is None]
        trace = self.trace()
        nlls = {key: nll for key in good if (nll := step.nll(key, trace)) is not None}
        unknown = [key for key in good if key not in nlls]
        if unknown and len(good) > 1:
            scores = yield [self._pair(step, key) for key in unknown]
            for key, logprobs in zip(unknown, scores, strict=True):
                nlls[key] = -sum(logprobs) / max(1, len(logprobs))
                step.keep_nll(key, trace, nlls[key])
        return min(good, key=lambda key: (nlls.get(key, 0.0), keys.index(key)), default=None)

    def _judgements(self, step: StoredStep, keys: Sequence[str]) -> list[tuple[str, Judgement]]:
        """Returns a verdict of quality control for each completion.

        Raises:
            Pending: one is not there yet; it is raised when all were asked for, so that none needs a round of its own.
        """
        found, pending = [], None
        for key in keys:
            try:
                found.append((key, step.judgement(self.example, key)))
            except Pending as error:
                pending = error
        if pending is not None:
            raise pending
        return found

    def _pair(self, step: StoredStep, key: str) -> Pair:
        """Returns prompt and target ids that say how likely a candidate is to the target, as an answer to the question."""
        prompt = self.example.prompt
        texts = self.texts() | dict(step.candidate(self.example, key).texts)
        if step.part == TRACE:
            return trace_pair(self.chat, prompt, texts[TRACE])
        if step.part == ANSWER:
            return answer_pair(self.chat, prompt, texts[TRACE], texts[ANSWER])
        return self.chat.prompt_ids(prompt), self.chat.target_ids(texts[TRACE], texts[ANSWER])
