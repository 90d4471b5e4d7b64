"""AdvBench: 520 harmful instructions (Zou et al. 2023, arXiv 2307.15043).

This project uses it mainly as the harmful probe task beside StrongREJECT. StrongREJECT took over 25 of its requests word for
word and two more almost so; they are left out of the probe split, so that no curve is drawn over reported requests.
The hub copy is gated and calls the column `prompt`; the authors' CSV calls it `goal`. Both are read.
"""

from __future__ import annotations

from dgr_lightning.tasks.task import EVALUATION, PROBE, Task, TaskRow, cell

# Fingerprints of the requests that StrongREJECT reports too: word sets that overlap by more than 0.6 (Jaccard). At 0.55 they
# are the same 27, at 0.7 one fewer.
IN_STRONGREJECT = frozenset(
    {
        "15e4c0c431db",
        "25e034ae2983",
        "38426200f4d2",
        "3e2be9d0566d",
        "3f17b541ed86",
        "4196d5e88443",
        "4516e4833ed2",
        "46fb3bd932e1",
        "4b68d8f42762",
        "4d3c90146a6a",
        "5301de79dccc",
        "5ad590a0468d",
        "5d69ba82db10",
        "64462b6c4e28",
        "66b97e7caee3",
        "73fab3d44149",
        "9d6fe1be85a5",
        "9ffff4edadd7",
        "a6f9538f8668",
        "b016eb0cb61b",
        "bd21b9a4020c",
        "bfa3c74b6eb7",
        "ca8283593049",
        "d494bcd8bf63",
        "e19bbb967172",
        "e2f14d8a4e02",
        "fac3cf17700d",
    }
)


def _read(row: TaskRow, index: int) -> tuple[str, str, None]:
    return str(index), cell(row, "goal", "prompt"), None


ADVBENCH = Task(
    name="advbench",
    kind="harmful",
    read=_read,
    splits={EVALUATION: "train", PROBE: "train"},
    outputs="short",
    hub_id="walledai/AdvBench",
    left_out={PROBE: IN_STRONGREJECT},
)
