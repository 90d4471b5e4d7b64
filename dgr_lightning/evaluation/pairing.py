"""Two models on the same problems: which of their outputs can be set against each other, and the difference of their rates.

Two rates are paired only where they mean the same: the same problem is the same id with the same prompt, judged by the same
judge or graded by the same version of a grader. What cannot be paired is left out with a reason, never averaged in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from dgr_lightning.engines.engine import LENGTH
from dgr_lightning.evaluation.samples import Sample
from dgr_lightning.hashes import content_hash
from dgr_lightning.scoring.judge import NO_TEXT
from dgr_lightning.scoring.panel import TRACE
from dgr_lightning.statistics.intervals import Estimate, rate
from dgr_lightning.statistics.paired import macro_difference, macro_p_value, paired_difference
from dgr_lightning.tasks.metrics import HARM_RATE, KINDS, TRACE_HARM_RATE, Kind


@dataclass(frozen=True)
class Measure:
    """A rate that models are compared by.

    Attributes:
        kind: of the tasks that have it.
        metric: its name.
        headline: name of its mean over tasks.
    """

    kind: Kind
    metric: str
    headline: str


def measures(kind: Kind) -> list[Measure]:
    """Returns the rates that tasks of a kind are compared by, as far as somebody has said them: its own, then those of harm."""
    harm = (HARM_RATE, TRACE_HARM_RATE) if kind.name == "harmful" else ()
    return [Measure(kind, kind.metric, kind.headline), *(Measure(kind, metric, metric) for metric in harm)]


ALL_MEASURES = [measure for kind in KINDS.values() for measure in measures(kind)]
"""In the order in which comparisons show them."""


@dataclass
class TaskOutcomes:
    """What the outputs of one model on one task count as, without their texts.

    Attributes:
        kind: of the task.
        judges: metric → judge that it is by; none of a task that is graded.
        graders: that its lines name, with their versions; empty for a task that is judged.
        prompts: problem → hash of its prompt.
        verdicts: metric → problem → sample → whether it counts; without samples that no judge could tell.
        capped: problem → sample → whether it ran into the token budget.
        num_tokens: of all outputs together.
        num_outputs: number of outputs.
    """

    kind: Kind
    judges: Mapping[str, str]
    graders: set[str] = field(default_factory=set)
    prompts: dict[str, str] = field(default_factory=dict)
    verdicts: dict[str, dict[str, list[bool]]] = field(default_factory=dict)
    capped: dict[str, list[bool]] = field(default_factory=dict)
    num_tokens: int = 0
    num_outputs: int = 0

    @property
    def cap_hit_rate(self) -> Estimate:
        """The share of outputs that ran into the token budget."""
        return rate(list(self.capped.values()))

    @property
    def mean_tokens(self) -> float:
        """Tokens of an output, thinking included."""
        return self.num_tokens / self.num_outputs


def read_outcomes(samples: Iterable[Sample], judges: Mapping[str, str]) -> TaskOutcomes | None:
    """Returns the outcomes of a task; None where there is no output.

    Args:
        samples: of one task and one model, read one by one: texts do not stay in memory.
        judges: metric → judge that this model's rates of a judged task are by.
    """
    found: TaskOutcomes | None = None
    for sample in samples:
        if found is None:
            found = TaskOutcomes(KINDS[sample["kind"]], {} if "gold" in sample else judges)
        id_ = sample["id"]
        found.prompts[id_] = content_hash(sample["prompt"])
        found.capped.setdefault(id_, []).append(sample["finish_reason"] == LENGTH)
        found.num_tokens += sample["num_tokens"]
        found.num_outputs += 1
        found.graders |= {sample["grader"]} if "grader" in sample else set()
        for metric, verdict in _counts(sample, found.kind, judges):
            if verdict is not None:
                found.verdicts.setdefault(metric, {}).setdefault(id_, []).append(verdict)
    return found


def _counts(sample: Sample, kind: Kind, judges: Mapping[str, str]) -> Iterator[tuple[str, bool | None]]:
    """Yields each metric with whether a sample counts; None: no judge could tell."""
    yield kind.metric, sample[kind.verdict]
    said = sample.get("judged")
    for one in said if isinstance(said, list) else ():
        metric = TRACE_HARM_RATE if one["part"] == TRACE else HARM_RATE
        if judges.get(metric) == one["judge"]:
            yield metric, False if one["error"] == NO_TEXT else one["harmful"]


@dataclass(frozen=True)
class PairedTask:
    """The outcomes of two models on the problems of a task that both were given.

    Attributes:
        measure: the rate.
        judge: of both; None for a task that is graded.
        a: outcomes of the first model, problem → sample.
        b: those of the second one, of the same problems.
        num_unpaired: problems that only one of the two has.
        num_other_prompts: problems of one id with different prompts, which are different problems.
    """

    measure: Measure
    judge: str | None
    a: Mapping[str, Sequence[bool]]
    b: Mapping[str, Sequence[bool]]
    num_unpaired: int = 0
    num_other_prompts: int = 0


def pair_task(a: TaskOutcomes, b: TaskOutcomes) -> tuple[list[PairedTask], list[str]]:
    """Returns what two models have in common on a task, a rate each, and a clause for each reason why something is left out."""
    if a.kind != b.kind:
        return [], [f"it is {a.kind.name} in one and {b.kind.name} in the other"]
    paired: list[PairedTask] = []
    left_out: list[str] = []
    for measure in measures(a.kind):
        if measure.metric not in a.verdicts and measure.metric not in b.verdicts:
            continue
        pair = _pair(a, b, measure)
        if isinstance(pair, str):
            left_out.append(pair if measure.metric == a.kind.metric else f"{measure.metric}: {pair}")
        else:
            paired.append(pair)
    return paired, left_out if paired or left_out else ["no output has a verdict"]


def _pair(a: TaskOutcomes, b: TaskOutcomes, measure: Measure) -> PairedTask | str:
    """Returns the outcomes that two models have in common, or a clause that says why there are none."""
    judges = [side.judges.get(measure.metric) for side in (a, b)]
    if judges[0] != judges[1]:
        first, second = (judge or "nobody" for judge in judges)
        return f"judged by {first} and by {second}: rates of different judges mean different things"
    if a.graders != b.graders:
        sides = (", ".join(sorted(side.graders)) or "an earlier version" for side in (a, b))
        return f"graded by {' and by '.join(sides)}; the same commands again grade what is stored, and generate nothing"
    common = [id_ for id_ in a.prompts if id_ in b.prompts]
    same = [id_ for id_ in common if a.prompts[id_] == b.prompts[id_]]
    first_verdicts, second_verdicts = (side.verdicts.get(measure.metric, {}) for side in (a, b))
    judged = [id_ for id_ in same if id_ in first_verdicts and id_ in second_verdicts]
    if not judged:
        if common and not same:
            return f"the prompts of all {len(common)} common problems differ"
        return "no problem has a verdict in both" if same else "they have no problem in common"
    return PairedTask(
        measure,
        judges[0],
        {id_: first_verdicts[id_] for id_ in judged},
        {id_: second_verdicts[id_] for id_ in judged},
        num_unpaired=len(a.prompts.keys() ^ b.prompts.keys()),
        num_other_prompts=len(common) - len(same),
    )


def difference(tasks: Sequence[PairedTask]) -> tuple[Estimate, float | None]:
    """Returns b minus a, of one task's rate or of the mean of several tasks' rates, and the p-value of no difference."""
    pairs = [(task.a, task.b) for task in tasks]
    return macro_difference(pairs), macro_p_value(pairs)


def capped_difference(a: TaskOutcomes, b: TaskOutcomes) -> Estimate:
    """Returns by how much more outputs of b than of a ran into the token budget, over the problems that both have."""
    return paired_difference(a.capped, b.capped)


def changes(task: PairedTask) -> tuple[int, int]:
    """Returns on how many problems the second model has a higher rate than the first, and on how many a lower one."""
    means = [(sum(own) / len(own), sum(task.b[id_]) / len(task.b[id_])) for id_, own in task.a.items()]
    return sum(b > a for a, b in means), sum(b < a for a, b in means)
