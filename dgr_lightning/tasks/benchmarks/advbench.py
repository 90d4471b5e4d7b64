"""AdvBench: 520 harmful instructions (Zou et al. 2023, arXiv 2307.15043).

This project uses it mainly as the harmful probe task. StrongREJECT, JailbreakBench and HarmBench took over 55 of its requests,
word for word or almost so. They are left out of the probe split, so that no curve is drawn over reported requests.
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

# The same of JailbreakBench and HarmBench, without those that StrongREJECT has already.
IN_OTHERS = frozenset(
    {
        "0972aedee354",
        "1838f72e4e6f",
        "2f5af453f253",
        "4046f0bd2a0b",
        "40f00a9d8af4",
        "4d9331b57dfd",
        "51eb7f27c174",
        "51f58f8a63b1",
        "53a3e4e72bec",
        "57d54f6cb272",
        "5d05007d80d2",
        "6482ff5a8a89",
        "67d2eab4606f",
        "68ece9fcc5ae",
        "6eb0a2b2fbda",
        "6ed4d59eef14",
        "7e278f846e65",
        "87ca73362d92",
        "8cb0ba0f8ac8",
        "9002459797d5",
        "bec908e1dd18",
        "c0eb2ea8435d",
        "cbdb0bf8492a",
        "ccf78fb03ce1",
        "d5f86383d843",
        "dc22196833bb",
        "ec01d72ca7f4",
        "fff52b4ba335",
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
    columns=("goal/prompt",),
    gated=True,
    licence="MIT",
    size=520,
    version=2,
    left_out={PROBE: IN_STRONGREJECT | IN_OTHERS},
)
