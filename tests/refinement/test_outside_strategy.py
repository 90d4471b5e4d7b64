"""A strategy of one's own, from outside the package: a file on PYTHONPATH, named on the command line."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from dgr_lightning.files import read_jsonl
from dgr_lightning.hashes import content_hash, file_hash
from tests.helpers.runs import command, environment

MODULE = '''
"""Whatever the model writes, a refusal of the chosen tone stands in for the answer."""

from collections.abc import Sequence
from dataclasses import dataclass

from dgr_lightning.config.setting import setting
from dgr_lightning.prompts.templates import RewritingTemplate
from dgr_lightning.refinement.step import Step
from dgr_lightning.refinement.strategy import FALLBACK, QUALITY, SAMPLING, Strategy


@dataclass(frozen=True)
class Refusal:
    tone: str
    part: str = "answer"
    sees_trace: bool = False
    template: RewritingTemplate = RewritingTemplate("mine", "Refuse: {{ question }}", ("question",))

    def applies(self, example):
        return True

    def prompt(self, example, trace):
        return self.template.render(question=example.prompt, trace="", answer="")

    def reference(self, example):
        return ""

    def kept(self, example, parsed):
        return {"answer": f"{self.tone}, no"}


class Mine(Strategy):
    keys = (*SAMPLING, *QUALITY, *FALLBACK)

    @dataclass
    class Options:
        tone: str = setting("gently", "how the refusal opens")
        again: int = setting(1, "how often the tone is said", low=1)

    def steps(self) -> Sequence[Step]:
        return [Refusal(" ".join([self.options.tone] * self.options.again))]
'''


def refine(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """Runs refine.py with the strategy in a process that can import it."""
    (folder / "mine.py").write_text(MODULE, encoding="utf-8")
    where = environment(folder / "cache") | {"PYTHONPATH": str(folder)}
    line = command(folder / "run", "refine.strategy=mine:Mine", "refine.name=mine", *overrides, script="refine.py")
    return subprocess.run(line, env=where, capture_output=True, text=True, timeout=600)


@pytest.mark.slow
def test_a_strategy_from_outside_refines_a_set_under_a_hash_of_its_options_and_code(tmp_path, cache):
    options = ["refine.options.tone=sternly", "refine.options.again=2"]
    small = ["data.limit=16", "refine.checks=[]", "refine.max_new_tokens=4", "refine.view=part"]
    done = refine(tmp_path, *options, *small)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "refine.view: not used by refine=mine" in done.stdout
    sources, refined = (list(read_jsonl(tmp_path / "run" / file)) for file in ("stages/sources.jsonl", "refined.jsonl"))
    assert [row | {"answer": "sternly sternly, no", "refined": True, "reason": None} for row in sources] == refined
    assert len(refined) == 16
    (folder,) = (cache / "rewrites").iterdir()
    headers = [json.loads(file.read_text().partition("\n")[0])["header"] for file in folder.glob("shard-*.jsonl")]
    assert headers and all(header == headers[0] for header in headers) and content_hash(headers[0]) == folder.name
    assert headers[0]["options"] == {"tone": "sternly", "again": 2}
    assert headers[0]["code"] == file_hash(tmp_path / "mine.py")


def test_an_option_that_it_does_not_have_ends_the_command_line_with_one_message(tmp_path):
    done = refine(tmp_path, "refine.options.tune=sternly")
    assert done.returncode == 2
    message = (
        "error: refine.options.tune: refine.strategy=mine:Mine has no such option. Did you mean tone? It has: tone, again."
    )
    assert done.stderr.strip() == message
    assert not (tmp_path / "run").exists() and not (tmp_path / "cache").exists()
