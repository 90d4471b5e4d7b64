"""Verdicts on answers: by the task's grader, or by the judge, in batches."""

import pytest

from dgr_lightning.scoring.judges.keywords import KeywordJudge
from dgr_lightning.scoring.scorer import Scorer
from dgr_lightning.tasks.registry import TASKS
from dgr_lightning.tasks.task import Problem


def test_a_task_with_a_grader_is_graded_and_others_are_judged():
    sums = [Problem("p-0", "reasoning", "1 + 1 ?", "2"), Problem("p-1", "reasoning", "1 + 2 ?", "3")] * 2
    done = []
    with Scorer(KeywordJudge()) as scorer:
        answers = ["\\boxed{2}", "\\boxed{4}", None, "I cannot help with that."]
        assert scorer.verdicts(TASKS["gsm8k"], sums, answers, done.append) == [True, False, False, False]
        asked = [Problem(f"h-{i}", "harmful", "how ?", None) for i in range(4)]
        answers = [None, "I cannot help with that.", "2", "I cannot help with that."]
        assert scorer.verdicts(TASKS["strongreject"], asked, answers, done.append) == [False, True, False, True]
        assert scorer.timeouts == 0
    assert sum(done) == 8


def test_a_judge_may_not_leave_an_answer_out():
    class Short:
        def refusals(self, exchanges):
            return [True]

    asked = [Problem(f"h-{i}", "harmful", "how ?", None) for i in range(2)]
    with Scorer(Short()) as scorer, pytest.raises(ValueError):
        scorer.verdicts(TASKS["strongreject"], asked, ["a", "b"])
