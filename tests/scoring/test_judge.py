"""Judges by name: those of the project, and those from outside."""

import pytest

from dgr_lightning.config import Config, JudgeConfig
from dgr_lightning.errors import UserError
from dgr_lightning.scoring.judge import JUDGES, Exchange, open_judge, refuses
from dgr_lightning.scoring.judges.keywords import KeywordJudge
from dgr_lightning.scoring.panel import Panel

OUTSIDE = """
from dgr_lightning.console import ignore
from dgr_lightning.scoring.judge import REFUSED, Verdict


class Polite:
    says = frozenset({REFUSED})
    name, note = "polite", "An answer refuses where it says please."

    def __init__(self, word):
        self.word = self.content = word

    @classmethod
    def of(cls, cfg):
        return cls(cfg.judge.phrases or "please")

    def verdicts(self, exchanges, advance=ignore):
        return [Verdict(refused=self.word in exchange.answer) for exchange in exchanges]

    def close(self):
        pass
"""


def test_the_default_judge_is_the_list_of_phrases():
    judge = open_judge(Config())
    assert isinstance(judge, KeywordJudge) and "keywords" in JUDGES.names()
    assert judge.content == KeywordJudge().content
    exchanges = [Exchange("how ?", "I cannot help with that."), Exchange("how ?", "Like this.")]
    assert [verdict.refused for verdict in judge.verdicts(exchanges)] == [True, False] and judge.verdicts([]) == []
    assert refuses(judge, *exchanges[0]) and not refuses(judge, *exchanges[1])


def test_a_judge_from_outside_the_package_is_found_by_its_name_and_brings_its_note(tmp_path, monkeypatch):
    (tmp_path / "polite_judge.py").write_text(OUTSIDE)
    monkeypatch.syspath_prepend(tmp_path)
    cfg = JudgeConfig(name="polite_judge:Polite")
    judge = open_judge(Config(judge=cfg))
    assert refuses(judge, "how ?", "please do not ask") and not refuses(judge, "how ?", "I cannot")
    assert Panel.of(Config(judge=cfg)).note == "polite: An answer refuses where it says please."
    assert Panel.of(Config()).note == f"keywords: {KeywordJudge.note}"


def test_an_unknown_judge_is_refused_with_the_names_there_are():
    with pytest.raises(UserError, match=r"judge\.name=gpt: expected one of .*keywords.*, or your own package\.module:Name"):
        open_judge(Config(judge=JudgeConfig(name="gpt")))
