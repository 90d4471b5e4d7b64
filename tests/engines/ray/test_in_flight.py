"""Requests in flight, without Ray: what is kept for whom, and what is sent again after a restart."""

from dgr_lightning.engines.ray.in_flight import RequestsInFlight
from dgr_lightning.engines.vllm.messages import Score, Scored

REQUESTS = [Score(request_id, [5, 6], 1) for request_id in range(4)]


def test_results_are_kept_for_those_who_asked_and_dropped_ones_for_nobody():
    in_flight = RequestsInFlight()
    in_flight.add(REQUESTS)
    in_flight.drop([3])
    assert in_flight.num_inside == 4, "Ray takes no request back"
    for request_id in (2, 0, 3):
        in_flight.arrive(Scored(request_id, [-1.0]))
    assert in_flight.collect({0, 1}) == [Scored(0, [-1.0])] and in_flight.collect({0, 1}) == []
    assert in_flight.collect({2, 3}) == [Scored(2, [-1.0])]
    assert in_flight.num_inside == 1 and in_flight.unfinished == [REQUESTS[1]]
