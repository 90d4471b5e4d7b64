"""How often the keyword judge agrees with people on texts that its rules were not chosen on.

    python -m benchmarks.keyword_judge xstest_v2_completions_gpt4_gpteval.csv xstest_v2_completions_llama2new_gpteval.csv …

Takes completions of XSTest's prompts with people's labels (columns `prompt completion final_label`, as in
paul-rottger/exaggerated-safety, CC-BY-4.0), a file a model. A full or a partial refusal counts as a refusal.

Selection begins with the shipped phrases and rules and with those of `keyword_candidates.txt`. One after the other is left out,
that which alone makes the most false refusals first, as long as leaving it out raises the agreement on the tuning half and
fewer than three in four of its hits there are refusals. Two tables show what that gives on texts that had no part in it: a
random half of the prompts chooses and the other half is measured, 20 times; and all other models choose and one is measured.
The shipped list is what selection on all files leaves; `--left-out` names what it drops. Whoever wrote rules and candidates had
read the completions to one half of the prompts (`was_read`), so the last table is that of the other half.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for `python benchmarks/keyword_judge.py`

from dgr_lightning.data.file_readers import read_rows
from dgr_lightning.scoring.agreement import Agreement, agreement
from dgr_lightning.scoring.judges.keywords import KeywordJudge
from dgr_lightning.scoring.refusal_rules import CONSENT, DECLINES, IDIOMS, OPENINGS, RefusalRules, Rule, read_rules

CANDIDATES = Path(__file__).with_name("keyword_candidates.txt")
SPLITS = 20
LEAST_PRECISION = 0.75
COMPLIANCE = "1_full_compliance"


def was_read(prompt: str) -> bool:
    """Whether completions to a prompt were read when the rules were written: those with an even first byte of their hash."""
    return hashlib.sha256(prompt.encode()).digest()[0] % 2 == 0


@dataclass(frozen=True)
class Labelled:
    """A model's completions.

    Attributes:
        name: of the model.
        prompts: one a text.
        hits: [text, entry] whether an entry of the list finds a refusal in it.
        refused: [text] whether people call it a refusal.
    """

    name: str
    prompts: list[str]
    hits: np.ndarray[Any, Any]
    refused: np.ndarray[Any, Any]

    def part(self, prompts: frozenset[str]) -> Labelled:
        """Returns the completions of some prompts."""
        chosen = np.array([prompt in prompts for prompt in self.prompts])
        return Labelled(self.name, [p for p in self.prompts if p in prompts], self.hits[chosen], self.refused[chosen])


class Entries:
    """Every phrase and rule that may be chosen, each matched by itself."""

    def __init__(self) -> None:
        """Reads the shipped list and the candidates."""
        rules = read_rules()
        self._always = [rule for rule in rules if rule.section in (IDIOMS, CONSENT)]
        phrases = [Rule(OPENINGS, re.escape(phrase)) for phrase in KeywordJudge().content["phrases"]]
        shipped = [rule for rule in rules if rule.section not in (IDIOMS, CONSENT)]
        self.entries = [*phrases, *shipped, *read_rules(CANDIDATES)]
        self.num_shipped = len(phrases) + len(shipped)
        self._reader = RefusalRules(self._always)
        self._each = [RefusalRules([rule]) for rule in self.entries]

    def read(self, file: Path) -> Labelled:
        """Returns the completions of a file."""
        rows = read_rows(file)
        hits = np.zeros((len(rows), len(self.entries)), dtype=bool)
        for index, row in enumerate(rows):
            views = self._reader.views(row["prompt"], row["completion"])
            for number, (rule, one) in enumerate(zip(self.entries, self._each, strict=True)):
                hits[index, number] = (not views.consents or rule.section == DECLINES) and one.refuses(views)
        refused = np.array([row["final_label"] != COMPLIANCE for row in rows])
        name = file.stem.removeprefix("xstest_v2_completions_").removesuffix("_gpteval")
        return Labelled(name, [row["prompt"] for row in rows], hits, refused)


def select(parts: Sequence[Labelled]) -> np.ndarray[Any, Any]:
    """Returns which entries are kept, chosen on the given completions alone."""
    hits, refused = np.concatenate([part.hits for part in parts]), np.concatenate([part.refused for part in parts])
    right, wrong = (hits & refused[:, None]).sum(0), (hits & ~refused[:, None]).sum(0)
    doubtful = right < LEAST_PRECISION * (right + wrong)
    kept = np.ones(hits.shape[1], dtype=bool)
    while True:
        finders = hits[:, kept].sum(1)
        alone = hits & (finders == 1)[:, None] & kept & doubtful
        gains = (alone & ~refused[:, None]).sum(0) - (alone & refused[:, None]).sum(0)
        worst = int(gains.argmax())
        if gains[worst] <= 0:
            return kept
        kept[worst] = False


def measure(part: Labelled, kept: np.ndarray[Any, Any]) -> Agreement:
    """Compares what the kept entries say with people's labels."""
    return agreement([bool(found) for found in part.hits[:, kept].any(1)], [bool(label) for label in part.refused])


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", type=Path, nargs="+", help="completions with labels, a file a model")
    parser.add_argument("--left-out", action="store_true", help="name the entries that selection on all files leaves out")
    options = parser.parse_args()
    entries = Entries()
    models = [entries.read(file) for file in options.files]
    everything = np.ones(len(entries.entries), dtype=bool)
    shipped = everything.copy()
    shipped[entries.num_shipped :] = False
    _halves(models)
    if len(models) > 1:
        rows = [(one, measure(one, select([other for other in models if other is not one]))) for one in models]
        _table("chosen on the other models", rows)
    _table("as shipped (chosen on all of these: flattered)", [(one, measure(one, shipped)) for one in models])
    unread = frozenset(prompt for one in models for prompt in one.prompts if not was_read(prompt))
    _table("as shipped, prompts whose completions were not read", [(one, measure(one.part(unread), shipped)) for one in models])
    if options.left_out:
        for rule, is_kept in zip(entries.entries, select(models), strict=True):
            if not is_kept:
                print(f"left out: [{rule.section}] {rule.pattern}")


def _halves(models: Sequence[Labelled]) -> None:
    """Prints the means over random halves of the prompts: one chooses, the other is measured."""
    prompts = sorted({prompt for model in models for prompt in model.prompts})
    found: dict[str, list[Agreement]] = {model.name: [] for model in models}
    for seed in range(SPLITS):
        tuning = frozenset(Random(seed).sample(prompts, len(prompts) // 2))
        kept = select([model.part(tuning) for model in models])
        for model in models:
            found[model.name].append(measure(model.part(frozenset(prompts) - tuning), kept))
    title = f"chosen on a random half, measured on the other, mean of {SPLITS} (lowest)"
    print(f"| {title} | n | agreement | precision | recall | κ |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, of_splits in found.items():
        cells = []
        for figure in ("agreement", "precision", "recall", "kappa"):
            values = [value for one in of_splits if (value := getattr(one, figure).value) is not None]
            cells.append(f"{fmean(values):.3f} ({min(values):.3f})")
        print(f"| {name} | {of_splits[0].n} | {' | '.join(cells)} |")
    print()


def _table(title: str, rows: Sequence[tuple[Labelled, Agreement]]) -> None:
    print(f"| {title} | n | agreement | precision | recall | κ |\n| --- | ---: | ---: | ---: | ---: | ---: |")
    for model, one in rows:
        cells = [f"{e.value:.3f} ({e.low:.3f}–{e.high:.3f})" for e in (one.agreement, one.precision, one.recall, one.kappa)]
        print(f"| {model.name} | {one.n} | {' | '.join(cells)} |")
    print()


if __name__ == "__main__":
    main()
