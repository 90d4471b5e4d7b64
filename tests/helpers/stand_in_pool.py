"""A stand-in for the vLLM processes of an engine."""

import random
from itertools import count

from dgr_lightning.config import EngineConfig
from dgr_lightning.engines.engine import STOP
from dgr_lightning.engines.vllm.messages import Generated, Score, Scored

CONFIG = EngineConfig(name="vllm", precision="fp32", batch_size=16, tensor_parallel=1, compile=False)


class Words:
    """Text of tokens for tests."""

    pad_id = 0

    def decode(self, ids):
        return " ".join(map(str, ids))


class StandInPool:
    """A pool whose processes finish, in some order, a few of a batch at a time, and answer with what they were asked."""

    max_length = 100

    def __init__(self, setup, environments):
        self.setup, self.environments = setup, environments
        self.batch_size = setup.arguments["max_num_seqs"] or 1024
        self.random, self.ids = random.Random(0), count()
        self.open = [{} for _ in environments]
        self.sizes, self.batches, self.dropped = [], [], []

    def __len__(self):
        return len(self.open)

    def num_open(self):
        return [len(own) for own in self.open]

    def next_id(self):
        return next(self.ids)

    def submit(self, requests):
        self.batches.append(len(requests))
        for index, request in requests:
            self.open[index][request.request_id] = request
        self.sizes.append(self.num_open())

    def collect(self, request_ids, *, wait_for_any):
        assert not wait_for_any or any(self.open), "waits for nothing"
        results = []
        for own in self.open if wait_for_any else []:
            for id_ in self.random.sample([*own][:16], min(3, len(own))):
                assert id_ in request_ids
                request = own.pop(id_)
                if isinstance(request, Score):
                    results.append(Scored(id_, [float(token) for token in request.ids[request.num_prompt :]]))
                else:
                    results.append(Generated(id_, (request.max_tokens, len(request.prompt_ids)), STOP))
        return results

    def drop(self, request_ids):
        self.dropped += request_ids

    def close(self):
        pass
