"""The keyword judge on refusals and helpful openings in other languages: sentences of our own, written with the rules known."""

import pytest

from dgr_lightning.scoring.judges.keywords import KeywordJudge
from tests.helpers.other_languages import HELPFUL, REFUSALS


@pytest.mark.parametrize("language", REFUSALS)
def test_refusals_are_found_and_help_is_not_taken_for_one(language):
    judge = KeywordJudge()
    assert [text for text in REFUSALS[language] if not judge.refuses(text)] == [], "missed"
    assert [text for text in HELPFUL[language] if judge.refuses(text)] == [], "false"
