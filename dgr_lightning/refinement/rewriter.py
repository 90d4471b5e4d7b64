"""One example on its way through the steps of a strategy: what is asked, what is accepted, why a part falls back."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from dgr_lightning.config import RefineConfig
from dgr_lightning.errors import UserError
from dgr_lightning.example import Example
from dgr_lightning.generation.completions import CompletionStore
from dgr_lightning.generation.jobs import Job, Needs, StoredRequest
from dgr_lightning.generation.shards import ShardedRows, shard_of
from dgr_lightning.hashes import content_hash
from dgr_lightning.models.chat import Chat
from dgr_lightning.models.pairs import Pair, answer_pair, trace_pair
from dgr_lightning.prompts.templates import ANSWER, TRACE
from dgr_lightning.refinement.outcome import Outcome
from dgr_lightning.refinement.quality import Candidate, Judgement, QualityControl
from dgr_lightning.refinement.strategies import Step

SOURCE = "source"


def generation_key(id_: str, part: str, attempt: int, content: str, trace: str | None = None) -> str:
    """Returns what a completion is stored under within its generation hash: `<id>/<part>/<try>/<content>`.

    Args:
        id_: of the example.
        part: the step.
        attempt: number of the try, from 0.
        content: hash of the example.
        trace: where the prompt shows a trace that was rewritten before, the generation hash and the key of that trace. So an
            answer that was made for one trace is never met by another: a changed check that accepts another trace asks for
            another answer.
    """
    return f"{id_}/{part}/{attempt}/{content if trace is None else content_hash(content, trace)}"


class Rewriter:
    """The jobs of a refinement, and what has come of them."""

    def __init__(
        self,
        examples: Sequence[Example],
        refine: RefineConfig,
        chat: Chat,
        control: QualityControl,
        steps: Sequence[Step],
        stores: Mapping[str, CompletionStore],
        verdicts: Mapping[str, ShardedRows],
        outcomes: Mapping[str, Outcome],
    ) -> None:
        """Asks nothing yet.

        Args:
            examples: the source set.
            refine: how.
            chat: the target's chat format.
            control: judges what comes back.
            steps: what the model is asked about every example, in order.
            stores: step → its completions.
            verdicts: step → what `control` said of them before, by the same keys.
            outcomes: by example id, in source order; filled in here.
        """
        self._examples, self._refine, self._chat, self._control = examples, refine, chat, control
        self._steps = {step.part: step for step in steps}
        self._stores, self._verdicts, self._outcomes = stores, verdicts, outcomes
        # Verdicts that could not be stored, because another process is writing theirs.
        self._unstored: dict[str, dict[str, Any]] = {}
        self._rejected: dict[str, Judgement] = {}

    def job(self, index: int) -> Job:
        """Takes one example through all steps, try by try."""
        example = self._examples[index]
        content = content_hash(example.prompt, example.trace, example.answer, example.label)
        outcome = self._outcomes[example.id]
        for step in self._steps.values():
            if not step.applies(example):
                continue
            wanted = [self._wanted(index, example, content, step, attempt) for attempt in range(self._refine.tries)]
            accepted = None
            if self._refine.select == "nll":
                yield wanted
                outcome.tried[step.part] = [one.key for one in wanted]
                accepted = yield from self._likeliest(index, step, [one.key for one in wanted])
            else:
                for one in wanted:
                    yield [one]
                    outcome.tried.setdefault(step.part, []).append(one.key)
                    if self.judgement(index, step.part, one.key).reason is None:
                        accepted = one.key
                        break
            if accepted is not None:
                outcome.accepted[step.part] = accepted
                continue
            reason = self.judgement(index, step.part, wanted[-1].key).reason
            assert reason is not None, "what passes every check is accepted"
            outcome.reasons[step.part] = reason
            # A whole example falls back with its trace, so its answer need not be generated.
            if self._refine.fallback_unit == "example":
                break

    def judge_sources(self) -> None:
        """Judges the source set itself, in place of anything that a model wrote."""
        for example in self._examples:
            texts = {TRACE: example.trace, ANSWER: example.answer}
            candidate = self._control.candidate(example, {part: text for part, text in texts.items() if text.strip()})
            judgement = self._control.judge_candidate(candidate)
            if judgement.reason is not None:
                self._outcomes[example.id].reasons[SOURCE] = judgement.reason
                self._rejected[example.id] = judgement

    def texts(self, index: int) -> dict[str, str]:
        """Returns trace and answer of an example as accepted: the source's where nothing was."""
        example = self._examples[index]
        texts = {TRACE: example.trace, ANSWER: example.answer}
        for part, key in self._outcomes[example.id].accepted.items():
            texts |= self._candidate(example, self._steps[part], key).texts
        return texts

    def judgement(self, index: int, part: str, key: str) -> Judgement:
        """Returns what quality control says of a completion, asking it only where it has not been asked before."""
        row = self._verdict(part, key)
        if row is not None:
            return Judgement(**row)
        judgement = self._control.judge_candidate(self._candidate(self._examples[index], self._steps[part], key))
        self._keep(part, key, asdict(judgement))
        return judgement

    def verdict_rows(self) -> Iterator[dict[str, Any]]:
        """Yields a line for every completion that was judged, in source order: the text only where it failed a check.

        Where the source set itself was judged, there is a line, of part `source`, for what was rejected.
        """
        for id_, judgement in self._rejected.items():
            yield {"id": id_, "part": SOURCE, "attempt": 0, **asdict(judgement), "nll": None, "text": None}
        for index, outcome in enumerate(self._outcomes.values()):
            for part, keys in outcome.tried.items():
                for attempt, key in enumerate(keys):
                    verdict = self.judgement(index, part, key)
                    example = self._examples[index]
                    texts = self._candidate(example, self._steps[part], key).texts if verdict.reason else None
                    text = None if texts is None else "\n\n".join(texts.values())
                    row = {"id": example.id, "part": part, "attempt": attempt, **asdict(verdict)}
                    yield row | {"nll": self._nll(part, key, outcome), "text": text}

    def _wanted(self, index: int, example: Example, content: str, step: Step, attempt: int) -> StoredRequest:
        trace = self._trace(self._outcomes[example.id]) if step.sees_trace else None

        def prompt_ids() -> list[int]:
            shown = self.texts(index)[TRACE] if trace is not None else example.trace
            return self._chat.prompt_ids(step.prompt(example, shown), self._refine.thinking)

        # The noise does not follow from content, so that two templates are sampled with the same random numbers.
        noise = f"{example.id}/{step.part}/{attempt}"
        key = generation_key(example.id, step.part, attempt, content, trace)
        return StoredRequest(self._stores[step.part], key, noise, prompt_ids)

    def _trace(self, outcome: Outcome) -> str | None:
        """Returns what identifies the accepted trace; None where it is the source's."""
        key = outcome.accepted.get(TRACE)
        return None if key is None else f"{self._stores[TRACE].folder.name}/{key}"

    def _likeliest(self, index: int, step: Step, keys: Sequence[str]) -> Generator[Needs, list[list[float]], str | None]:
        """Of the tries that pass every check, returns the one with the lowest NLL per token; None where none passes.

        To be delegated to by a job, since it asks for scores.
        """
        good = [key for key in keys if self.judgement(index, step.part, key).reason is None]
        outcome = self._outcomes[self._examples[index].id]
        nlls = {key: nll for key in good if (nll := self._nll(step.part, key, outcome)) is not None}
        unknown = [key for key in good if key not in nlls]
        if unknown and len(good) > 1:
            scores = yield [self._pair(index, step, key) for key in unknown]
            for key, logprobs in zip(unknown, scores, strict=True):
                nlls[key] = -sum(logprobs) / max(1, len(logprobs))
                self._keep(step.part, self._nll_key(step.part, key, outcome), {"nll": nlls[key]})
        return min(good, key=lambda key: (nlls.get(key, 0.0), keys.index(key)), default=None)

    def _nll(self, part: str, key: str, outcome: Outcome) -> float | None:
        row = self._verdict(part, self._nll_key(part, key, outcome))
        return None if row is None else row["nll"]

    def _nll_key(self, part: str, key: str, outcome: Outcome) -> str:
        """Returns where the NLL of a candidate is kept; that of an answer is one given the accepted trace."""
        return f"{key}/nll" if part != ANSWER else f"{key}/nll/{content_hash(self._trace(outcome))}"

    def _pair(self, index: int, step: Step, key: str) -> Pair:
        """Returns prompt and target ids that say how likely a candidate is to the target, as an answer to the question."""
        example = self._examples[index]
        texts = {**self.texts(index), **self._candidate(example, step, key).texts}
        if step.part == TRACE:
            return trace_pair(self._chat, example.prompt, texts[TRACE])
        if step.part == ANSWER:
            return answer_pair(self._chat, example.prompt, texts[TRACE], texts[ANSWER])
        return self._chat.prompt_ids(example.prompt), self._chat.target_ids(texts[TRACE], texts[ANSWER])

    def _candidate(self, example: Example, step: Step, key: str) -> Candidate:
        completion = self._stores[step.part].get(key)
        assert completion is not None, f"{key} is not in the store"
        parsed = self._chat.parse(completion.text, self._refine.thinking)
        kept = step.kept(example, parsed)
        return self._control.candidate(
            example,
            kept,
            thought="" if TRACE in kept and step.part != TRACE else parsed.trace or "",
            reference=step.reference(example),
            finish_reason=completion.finish_reason,
        )

    def _verdict(self, part: str, key: str) -> dict[str, Any] | None:
        return self._unstored.get(key) or self._verdicts[part].row(key)

    def _keep(self, part: str, key: str, row: dict[str, Any]) -> None:
        """Stores a verdict, or remembers it where another process is writing its own, or the cache may only be read."""
        verdicts = self._verdicts[part]
        try:
            claimed = verdicts.claim(shard_of(key), wait=False)
        except UserError:
            claimed = False
        if not claimed:
            self._unstored[key] = row
        elif key not in verdicts:
            verdicts.write(key, row)
