"""`judge.also` and `judge.part` on the command line."""

import pytest

from dgr_lightning.cli.compose import compose
from dgr_lightning.errors import UserError

CHAT = ["judge=chat", "judge.url=http://127.0.0.1:1/v1", "judge.served_model=m"]


def test_further_judges_begin_with_their_own_yaml_and_the_part_of_the_first():
    cfg = compose(
        "evaluate",
        [*CHAT, "judge.part=both", "judge.also=[keywords, {judge: strongreject, url: 'http://a/v1', served_model: n}]"],
    )
    words, rubric = cfg.judge.also
    assert (words.name, words.part) == ("keywords", "answer")
    assert (rubric.name, rubric.part, rubric.url, rubric.served_model) == ("strongreject", "both", "http://a/v1", "n")
    own = compose(
        "evaluate", [*CHAT, "judge.part=both", "judge.also=[{judge: chat, url: 'http://a/v1', served_model: n, part: trace}]"]
    )
    assert own.judge.also[0].part == "trace"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["judge.also=[keywordz]"], r"judge\.also\[0\]\.judge=keywordz: no judge 'keywordz'\. Did you mean keywords\?"),
        (
            ["judge.also=[{name: keywords}]"],
            r"judge\.also\[0\]=.*expected the name of a judge, or a mapping that has it as judge",
        ),
        (
            ["judge.also=[{judge: keywords, phrase: x}]"],
            r"judge\.also\[0\]\.phrase: no key of a judge\. Did you mean phrases\?",
        ),
        (["judge.also=[{judge: chat, batch_size: 0}]"], r"judge\.also\[0\]\.batch_size"),
        (["judge.also=[keywords]"], r"keywords is asked twice"),
        (["judge.also=keywords"], r"judge\.also=keywords"),
        (["judge.part=trace"], r"judge\.part=trace: keywords says whether an answer refuses"),
        (["judge.part=some"], r"judge\.part=some: expected one of answer, trace, both, whole"),
        (["judge=chat"], r"judge=chat: name the server and its model"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_what_to_write(overrides, said):
    with pytest.raises(UserError, match=said):
        compose("evaluate", overrides)
