"""Several sources in one set: how many examples each part gives, and which.

Shares become whole numbers by largest remainder: every part gets the whole part of share × total, and what is then missing
goes, one by one, to the parts with the largest remainders, the earlier part first where they are equal. So the numbers sum up
to the total and none is off by as much as one. Parts draw in their order, each by a hash of seed and id; a row that several
parts may draw is drawn at most once, by the first of them that wants it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from rich.markup import escape

from dgr_lightning.config import DataConfig
from dgr_lightning.console import say
from dgr_lightning.data.mix_parts import Pool, read_pool
from dgr_lightning.data.row_parsing import format_counts
from dgr_lightning.errors import UserError
from dgr_lightning.example import Example
from dgr_lightning.hashes import sorted_by_hash


@dataclass(frozen=True)
class _Shortage:
    """A part that cannot give what its share asks for."""

    pool: Pool
    needed: int
    free: int


def load_parts(
    data: DataConfig, seed: int, is_measured: Callable[[str], bool] | None
) -> tuple[list[list[Example]], Counter[str]]:
    """Reads every part of `data.mix` and draws from it; prints a line for each.

    Args:
        data: the parts, and `limit`, the number of examples of the whole set; None: as many as all parts allow.
        seed: the run's seed.
        is_measured: whether the model is measured on a prompt; such rows are rejected. None: no row is.

    Returns:
        The examples of each part, and the number of rejected rows by reason.

    Raises:
        UserError: a part cannot be read or has too few rows; the message names its key.
    """
    rejected: dict[str, Counter[str]] = {}
    pools = []
    for key, part in data.parts:
        pool, of_part = read_pool(part, key, is_measured)
        pools.append(pool)
        rows = repr((pool.place, part.keep, part.first))
        rejected[rows] = rejected.get(rows, Counter()) | of_part  # a row that several parts read counts once
    parts = draw_parts(pools, data.limit, seed)
    for pool, drawn in zip(pools, parts, strict=True):
        counts = format_counts(Counter(example.label for example in drawn))
        say(
            f"{escape(pool.key)}, {escape(pool.name)}: {len(drawn)} of {len(pool.examples)} examples drawn ({counts or 'none'})"
        )
    return parts, sum(rejected.values(), Counter())


def part_sizes(shares: Sequence[float], total: int) -> list[int]:
    """Returns how many of `total` examples each part gives, by largest remainder.

    Args:
        shares: of the parts, above 0; they sum up to 1, or nearly.
        total: number of examples.

    Returns:
        Whole numbers that sum up to `total`, each less than one away from share × total.
    """
    exact = [Fraction(str(share)) for share in shares]
    quotas = [share * total / sum(exact) for share in exact]
    sizes = [math.floor(quota) for quota in quotas]
    by_remainder = sorted(range(len(quotas)), key=lambda index: sizes[index] - quotas[index])
    for index in by_remainder[: total - sum(sizes)]:
        sizes[index] += 1
    return sizes


def draw_parts(pools: Sequence[Pool], limit: int | None, seed: int) -> list[list[Example]]:
    """Draws the examples of every part.

    Args:
        pools: the parts, in their order; none is empty.
        limit: number of examples of the whole set; None: as many as all parts allow.
        seed: the run's seed.

    Returns:
        The examples of each part, in the order of its source.

    Raises:
        UserError: a part has too few rows for its share of `limit`, or two sources call different rows by the same id.
    """
    ranked = [_ranked(pool, seed) for pool in pools]
    total = _largest_total(pools, ranked, None) if limit is None else limit
    drawn = _draw(pools, ranked, total)
    if isinstance(drawn, _Shortage):
        pool, smaller = drawn.pool, _largest_total(pools, ranked, total)
        left = " that no part before it draws" if _is_shared(pool, pools) else ""
        raise UserError(
            f"{pool.key} ({pool.name}, {pool.kind}): share {pool.share:g} of data.limit={total} is {drawn.needed} examples, "
            f"and it has {drawn.free}{left}. Write data.limit={smaller}, or give this part a smaller share or more rows."
        )
    parts = [[pool.examples[index] for index in sorted(indices)] for pool, indices in zip(pools, drawn, strict=True)]
    _check_ids(pools, parts)
    return parts


def _ranked(pool: Pool, seed: int) -> list[int]:
    return sorted_by_hash(pool.examples, lambda index: f"{seed} {pool.examples[index].id}")


def _draw(pools: Sequence[Pool], ranked: Sequence[Sequence[int]], total: int) -> list[list[int]] | _Shortage:
    """Returns the rows that each part draws, or the first part that has too few that are free."""
    taken: dict[Hashable, set[int]] = {}
    drawn: list[list[int]] = []
    for pool, ranking, size in zip(pools, ranked, part_sizes([pool.share for pool in pools], total), strict=True):
        of_place = taken.setdefault(pool.place, set())
        free = [index for index in ranking if index not in of_place] if of_place else ranking
        if len(free) < size:
            return _Shortage(pool, size, len(free))
        drawn.append(list(free[:size]))
        of_place.update(free[:size])
    return drawn


def _largest_total(pools: Sequence[Pool], ranked: Sequence[Sequence[int]], below: int | None) -> int:
    """Returns the largest number of examples that the parts allow, or the largest below a number that they do not allow.

    Where parts compete for rows it is found by bisection, which supposes that what is too much stays too much.
    """
    most = min(math.ceil((len(pool.examples) + 1) / Fraction(str(pool.share))) for pool in pools)  # too many for some part
    high = most if below is None else min(most, below)
    shares = [pool.share for pool in pools]
    if not any(_is_shared(pool, pools) for pool in pools):
        totals = range(high, 0, -1)
        return next(
            total
            for total in totals
            if total != below
            and all(size <= len(pool.examples) for size, pool in zip(part_sizes(shares, total), pools, strict=True))
        )
    low = 0
    while high - low > 1:
        middle = (low + high) // 2
        if isinstance(_draw(pools, ranked, middle), _Shortage):
            high = middle
        else:
            low = middle
    return low


def _is_shared(pool: Pool, pools: Sequence[Pool]) -> bool:
    """Whether another part may draw some of the same rows."""
    others = (other for other in pools if other is not pool and other.place == pool.place)
    return any(not pool.examples.keys().isdisjoint(other.examples) for other in others)


def _check_ids(pools: Sequence[Pool], parts: Sequence[Sequence[Example]]) -> None:
    counts = Counter(example.id for part in parts for example in part)
    repeated = {id_ for id_, count in counts.items() if count > 1}
    if not repeated:
        return
    keys = [pool.key for pool, part in zip(pools, parts, strict=True) if any(example.id in repeated for example in part)]
    raise UserError(
        f"{', '.join(keys)}: {len(repeated)} ids stand for different rows, such as {min(repeated)!r}. Give {keys[-1]} a name "
        "of its own, such as name: other, or the same fields.id where parts read the same rows."
    )
