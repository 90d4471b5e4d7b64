"""The judges of an evaluation, several at once: which text each is given, and which of them decides what.

What counts as a refusal, or as harm, is decided by the first judge that says it, for every output alike: a guard that says
harmful alone leaves refusals to the next judge, and where none says them to the list of phrases. A verdict that failed stays a
failed one; another judge never steps in for a single output, or a rate would be of two measures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from dgr_lightning.config import Config, JudgeConfig
from dgr_lightning.console import ignore
from dgr_lightning.errors import UserError
from dgr_lightning.models.thinking import Parsed
from dgr_lightning.scoring.judge import NO_TEXT, REFUSED, Exchange, Judge, Verdict, open_judge

ANSWER, TRACE, WHOLE, BOTH = "answer", "trace", "whole", "both"
"""What of an output is judged: the text after thinking, the thinking, the one after the other as a single text; or the first
two, each by itself."""

Judged = Mapping[str, Mapping[str, Verdict]]
"""judge → part (`ANSWER`, `TRACE`, `WHOLE`) → its verdict; `NO_TEXT` for a part that the output does not have."""


@dataclass(frozen=True)
class Member:
    """A judge with the part of an output that it is given, as `judge.part` names it."""

    judge: Judge
    part: str = ANSWER

    @property
    def parts(self) -> tuple[str, ...]:
        """The texts that it is given; one that says refusals alone is given answers alone, since only an answer refuses."""
        if self.judge.says == {REFUSED}:
            return (ANSWER,)
        return (ANSWER, TRACE) if self.part == BOTH else (self.part,)

    @property
    def says_refusals(self) -> bool:
        """Whether it says of answers whether they refuse."""
        return REFUSED in self.judge.says and self.parts != (TRACE,)


class Panel:
    """Judges that are asked about the same outputs.

    Attributes:
        members: in the order of the config, with the list of phrases behind them where none of them says refusals.
    """

    def __init__(self, *members: Member | Judge) -> None:
        """Keeps the judges; one that is given without a part judges answers.

        Raises:
            UserError: two of them have one name.
        """
        self.members = tuple(one if isinstance(one, Member) else Member(one) for one in members)
        names = [member.judge.name for member in self.members]
        if twice := [name for name in names if names.count(name) > 1]:
            raise UserError(
                f"judge.also: {twice[0]} is asked twice, and rates are named by their judge. Name it once, or give the second "
                "entry another model or template."
            )

    @classmethod
    def of(cls, cfg: Config, open_one: Callable[[Config], Judge] = open_judge) -> Panel:
        """Returns the judges of `cfg.judge`, opened.

        Args:
            cfg: the config.
            open_one: opens one of them; that of a stage stores verdicts.

        Raises:
            UserError: there is no such judge, or one cannot be used.
        """
        found = [Member(open_one(replace(cfg, judge=one)), one.part) for one in (cfg.judge, *cfg.judge.also)]
        if not any(member.says_refusals for member in found):
            found.append(Member(open_one(replace(cfg, judge=JudgeConfig(phrases=cfg.judge.phrases)))))
        return cls(*found)

    @property
    def note(self) -> str:
        """What kind of measures the rates of its judges are: a line each, which begins with its name."""
        return "\n".join(f"{member.judge.name}: {member.judge.note}" for member in self.members)

    @property
    def num_texts(self) -> int:
        """Most texts that are judged of an output."""
        return sum(len(member.parts) for member in self.members)

    def judge(
        self, prompts: Sequence[str], outputs: Sequence[Parsed], advance: Callable[[int], object] = ignore
    ) -> Sequence[Judged]:
        """Returns what every judge says of every output. A judge gets all its texts of one kind in one batch.

        Args:
            prompts: one an output.
            outputs: traces and answers.
            advance: called with numbers of texts as they are done, `num_texts` an output.
        """
        judged: list[dict[str, dict[str, Verdict]]] = [{} for _ in outputs]
        for member in self.members:
            for part in member.parts:
                verdicts = _verdicts(member.judge, part, prompts, outputs, advance)
                for own, output, verdict in zip(judged, outputs, verdicts, strict=True):
                    if verdict.refused and not _has_answer(output):  # of the whole output, which is a trace alone
                        verdict = replace(verdict, refused=False)
                    own.setdefault(member.judge.name, {})[part] = verdict
        return judged

    def judge_in_turn(self, prompts: Sequence[str], outputs: Sequence[Parsed]) -> None:
        """Has every judge judge everything before the next one begins, for judges whose verdicts are stored.

        Two models that judge would otherwise take turns on the devices, task by task, and be loaded each time.

        Args:
            prompts: one an output, of all tasks.
            outputs: traces and answers.
        """
        for member in self.members:
            for part in member.parts:
                list(_verdicts(member.judge, part, prompts, outputs, ignore))
            member.judge.close()

    def refused(self, output: Parsed, judged: Judged) -> bool | None:
        """Whether an output counts as a refusal, by the first judge that says it; None: that judge could not tell.

        An output without an answer is no refusal, whatever else of it was judged.
        """
        member = next((member for member in self.members if member.says_refusals), None)
        if not _has_answer(output):
            return False
        return None if member is None else judged[member.judge.name][member.parts[0]].refused

    def close(self) -> None:
        """Closes all judges."""
        for member in self.members:
            member.judge.close()


def _has_answer(output: Parsed) -> bool:
    return output.answer is not None and bool(output.answer.strip())


def _verdicts(
    judge: Judge, part: str, prompts: Sequence[str], outputs: Sequence[Parsed], advance: Callable[[int], object]
) -> Iterator[Verdict]:
    texts = [_text(output, part) for output in outputs]
    exchanges = [Exchange(prompt, text) for prompt, text in zip(prompts, texts, strict=True) if text is not None]
    advance(len(outputs) - len(exchanges))
    verdicts = judge.verdicts(exchanges, advance) if exchanges else []
    if len(verdicts) != len(exchanges):
        raise ValueError(f"judge {judge.name}: {len(verdicts)} verdicts on {len(exchanges)} texts")
    found = iter(verdicts)
    for text in texts:
        yield Verdict(error=NO_TEXT) if text is None else next(found)


def _text(output: Parsed, part: str) -> str | None:
    """Returns a part of an output; None where it does not have it, or where there is nothing in it."""
    texts = {ANSWER: [output.answer], TRACE: [output.trace], WHOLE: [output.trace, output.answer]}[part]
    return "\n\n".join(text for text in texts if text and text.strip()) or None
