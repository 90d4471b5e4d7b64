"""When in-training evaluation (`probes`) comes, and what it costs: pure functions, for the door, the plan and the report.

The cadence follows from the number of optimizer steps alone and is fixed before the run is named: neither the clock nor the
machine moves a point of a curve. What a probe costs is estimated beforehand and measured during the run.
"""

from __future__ import annotations

from math import ceil

LARGE_SHARE = 0.1
"""Share of a training's time that probes may take without a warning."""

_SHORT_SECONDS = 3.0  # of probes: a warning about less helps nobody
_PROBES = 5  # behind step 0


def probe_interval(num_steps: int) -> int:
    """Returns what `probes.every=auto` becomes: a fifth of the steps, rounded up, so that a curve has at most six points."""
    return max(1, ceil(num_steps / _PROBES))


def num_probes(num_steps: int, every: int) -> int:
    """Returns how often a training probes: at step 0, every `every` steps, and after the last; 0 where `every` is 0."""
    return 0 if every == 0 else 1 + ceil(num_steps / every)


def estimated_seconds(
    num_probes: int, num_problems: int, max_new_tokens: int, decode_seconds: float, batch_size: int, num_ranks: int = 1
) -> float:
    """Returns about how long all probes of a training take: their longest outputs, a token after the other.

    Decoding reads every weight once a token, so that, until a batch is full, its time follows from the length of the longest
    output and hardly from the number of problems. Prompts, scoring and, under FSDP, gathering the weights are not counted.

    Args:
        num_probes: as `num_probes` returns it.
        num_problems: of a probe, over all its tasks.
        max_new_tokens: tokens of the longest output.
        decode_seconds: of one decoding step, for a whole batch.
        batch_size: rows that are decoded together on a rank.
        num_ranks: ranks that share the problems.
    """
    batches = ceil(ceil(num_problems / num_ranks) / batch_size)
    return num_probes * batches * max_new_tokens * decode_seconds


def probe_share(probe_seconds: float, step_seconds: float) -> float:
    """Returns the share of probes in the time of a training: of the seconds in probes and in optimizer steps."""
    total = probe_seconds + step_seconds
    return probe_seconds / total if total else 0.0


def share_warning(probe_seconds: float, step_seconds: float, size: int, max_new_tokens: int) -> str | None:
    """Returns the sentence that says that probes took more than `LARGE_SHARE`, and which keys make them smaller; else None."""
    share = probe_share(probe_seconds, step_seconds)
    if share <= LARGE_SHARE or probe_seconds < _SHORT_SECONDS:
        return None
    return (
        f"probes took {share:.0%} of the training's time ({probe_seconds:.1f} s beside {step_seconds:.1f} s in steps): "
        + advice(size, max_new_tokens)
    )


def advice(size: int, max_new_tokens: int) -> str:
    """Returns which keys make probes take less, and their values."""
    return (
        f"a smaller probes.size (now {size}) or probes.max_new_tokens (now {max_new_tokens}) makes them shorter, "
        "a larger probes.every rarer"
    )
