"""Scores of outputs: by the task's grader, or by the judge, in batches."""

import pytest

from dgr_lightning.models.thinking import Parsed
from dgr_lightning.scoring.grader import NO_ANSWER
from dgr_lightning.scoring.judge import NO_TEXT, REFUSED, Verdict
from dgr_lightning.scoring.judges.keywords import KeywordJudge
from dgr_lightning.scoring.panel import ANSWER, Panel
from dgr_lightning.scoring.scorer import Scorer
from dgr_lightning.tasks.registry import TASKS
from dgr_lightning.tasks.task import Problem


def test_a_task_with_a_grader_is_graded_and_others_are_judged():
    sums = [Problem("p-0", "reasoning", "1 + 1 ?", "2"), Problem("p-1", "reasoning", "1 + 2 ?", "3")] * 2
    done = []
    with Scorer(Panel(KeywordJudge())) as scorer:
        outputs = [Parsed("", answer) for answer in ("\\boxed{2}", "\\boxed{4}", None, "I cannot help with that.")]
        scores = scorer.scores(TASKS["gsm8k"], sums, outputs, done.append)
        assert [score.verdict for score in scores] == [True, False, False, False]
        assert scores[2].grade.outcome == NO_ANSWER and scores[0].grade.boxed
        assert scorer.grader_version(TASKS["gsm8k"]) >= 1 and scorer.grader_version(TASKS["strongreject"]) is None
        asked = [Problem(f"h-{i}", "harmful", "how ?", None) for i in range(4)]
        outputs = [Parsed("", answer) for answer in (None, "I cannot help with that.", "2", "I cannot help with that.")]
        scores = scorer.scores(TASKS["strongreject"], asked, outputs, done.append)
        assert [score.verdict for score in scores] == [False, True, False, True]
        assert scores[0].judged == {"keywords": {ANSWER: Verdict(error=NO_TEXT)}}, "there was nothing to judge"
        assert scores[1].judged == {"keywords": {ANSWER: Verdict(refused=True)}}
    assert sum(done) == 8


def test_a_judge_may_not_leave_an_answer_out():
    class Short:
        name, note, says = "short", "Only a test.", frozenset({REFUSED})

        def verdicts(self, exchanges, advance):
            return [Verdict(refused=True)]

        def close(self):
            pass

    asked = [Problem(f"h-{i}", "harmful", "how ?", None) for i in range(2)]
    with Scorer(Panel(Short())) as scorer, pytest.raises(ValueError):
        scorer.scores(TASKS["strongreject"], asked, [Parsed("", "a"), Parsed("", "b")])
