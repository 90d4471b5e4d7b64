"""The registry of tasks: problems to reason about, requests to refuse, requests to answer. A benchmark a file."""

from __future__ import annotations

from dgr_lightning.tasks.advbench import ADVBENCH
from dgr_lightning.tasks.gsm8k import GSM8K
from dgr_lightning.tasks.jailbreakbench import JAILBREAKBENCH_BENIGN
from dgr_lightning.tasks.math500 import MATH500
from dgr_lightning.tasks.micro import MICRO_TASKS
from dgr_lightning.tasks.strongreject import STRONGREJECT
from dgr_lightning.tasks.xstest import XSTEST

TASKS_VERSION = 1
"""Part of every task's content: one more whenever this code makes another problem of the same row."""

TASKS = {task.name: task for task in (GSM8K, MATH500, STRONGREJECT, XSTEST, ADVBENCH, JAILBREAKBENCH_BENIGN, *MICRO_TASKS)}
