"""Requests on their way into an engine: no more than it has room for, and those without room for an answer."""

from dgr_lightning.engines.engine import LENGTH, Completion, Request
from dgr_lightning.engines.request_queue import RequestQueue, with_budgets


def test_no_more_requests_are_taken_than_there_is_room_for_and_none_past_a_pause():
    requests = [Request(str(i), (5,)) for i in range(3)]
    queue = RequestQueue([requests[0], None, *requests[1:]])
    assert queue.take(0) == [] and queue.take(5) == [requests[0]] and not queue.exhausted
    assert queue.take(1) == [requests[1]] and queue.take(5) == [requests[2]] and queue.exhausted


def test_a_budget_is_what_prompt_and_limit_leave():
    requests = [Request(str(length), (5,) * length) for length in (4, 9, 10, 11)]
    budgeted, empty = with_budgets(requests, max_new_tokens=5, max_length=10)
    assert budgeted == [(requests[0], 5), (requests[1], 1)]
    assert empty == [Completion("10", (), "", LENGTH), Completion("11", (), "", LENGTH)]
    assert with_budgets(requests, max_new_tokens=5, max_length=None) == ([(request, 5) for request in requests], [])
