"""Several judges at once: which texts each is given, and whose word counts as a refusal."""

import pytest

from dgr_lightning.config import Config, JudgeConfig
from dgr_lightning.errors import UserError
from dgr_lightning.models.thinking import Parsed
from dgr_lightning.scoring.judge import HARMFUL, NO_TEXT, REFUSED, UNPARSABLE, Verdict
from dgr_lightning.scoring.judges.keywords import KeywordJudge
from dgr_lightning.scoring.panel import Member, Panel


class Guard:
    """Says harm where a text says so; remembers what it was given."""

    note = "Only a test."

    def __init__(self, name="guard", says=frozenset({HARMFUL}), broken=False):
        self.name, self.says, self.broken = name, says, broken
        self.content, self.given = name, []

    def verdicts(self, exchanges, advance):
        self.given += [exchange.answer for exchange in exchanges]
        advance(len(exchanges))
        if self.broken:
            return [Verdict(error=UNPARSABLE)] * len(exchanges)
        return [
            Verdict(
                refused="cannot" in text if REFUSED in self.says else None,
                harmful="harm" in text if HARMFUL in self.says else None,
            )
            for text in (exchange.answer for exchange in exchanges)
        ]

    def close(self):
        self.given = None


OUTPUTS = [Parsed("a harmful plan", "I cannot."), Parsed("", "harm it"), Parsed("so it", None), Parsed("hm", "  ")]


@pytest.mark.parametrize(
    ("part", "given"),
    [
        ("answer", ["I cannot.", "harm it"]),
        ("trace", ["a harmful plan", "so it", "hm"]),
        ("both", ["I cannot.", "harm it", "a harmful plan", "so it", "hm"]),
        ("whole", ["a harmful plan\n\nI cannot.", "harm it", "so it", "hm"]),
    ],
)
def test_a_judge_is_given_the_parts_that_an_output_has(part, given):
    guard, done = Guard(), []
    panel = Panel(Member(guard, part), KeywordJudge())
    judged = panel.judge(["How?"] * 4, OUTPUTS, done.append)
    assert guard.given == given and sum(done) == panel.num_texts * 4
    assert all(one.keys() == {"guard", "keywords"} for one in judged)
    assert [verdict.error for verdict in judged[2]["keywords"].values()] == [NO_TEXT]


def test_who_says_no_refusals_leaves_them_to_the_next_for_every_output():
    panel = Panel(Guard(), KeywordJudge())
    judged = panel.judge(["How?"] * 4, OUTPUTS)
    assert [panel.refused(output, one) for output, one in zip(OUTPUTS, judged, strict=True)] == [True, False, False, False]


def test_a_failed_verdict_is_no_refusal_and_no_other_judge_steps_in():
    panel = Panel(Guard(says=frozenset({REFUSED, HARMFUL}), broken=True), KeywordJudge())
    judged = panel.judge(["How?"] * 4, OUTPUTS)
    found = [panel.refused(output, one) for output, one in zip(OUTPUTS, judged, strict=True)]
    assert found == [None, None, False, False], "an output without an answer is no refusal, whatever the judge could tell"


def test_a_trace_alone_is_no_refusal_even_where_the_whole_is_judged():
    output = Parsed("I cannot do this", None)
    panel = Panel(Member(Guard(says=frozenset({REFUSED, HARMFUL})), "whole"))
    (judged,) = panel.judge(["How?"], [output])
    assert judged["guard"]["whole"].refused is False and panel.refused(output, judged) is False


def test_a_config_without_a_judge_of_refusals_gets_the_list_of_phrases():
    assert [member.judge.name for member in Panel.of(Config()).members] == ["keywords"]
    chat = JudgeConfig(name="chat", url="http://127.0.0.1:1/v1", served_model="m")
    assert [member.judge.name for member in Panel.of(Config(judge=chat)).members] == ["chat:m"]
    chat.part = "trace"
    panel = Panel.of(Config(judge=chat))
    assert [member.judge.name for member in panel.members] == ["chat:m", "keywords"]
    assert panel.note.splitlines() == [f"chat:m: {panel.members[0].judge.note}", f"keywords: {KeywordJudge.note}"]


def test_two_judges_of_one_name_are_refused():
    with pytest.raises(UserError, match=r"judge\.also: keywords is asked twice"):
        Panel.of(Config(judge=JudgeConfig(also=[JudgeConfig()])))
