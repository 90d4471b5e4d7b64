"""What a worker asks of vLLM and tells its parent, with a stand-in for vLLM's modules."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from dgr_lightning.config import EngineConfig
from dgr_lightning.engines.vllm.arguments import engine_arguments
from dgr_lightning.engines.vllm.messages import Setup
from dgr_lightning.engines.vllm.worker import Worker

# Sequences of a step by context, as vLLM 0.32 has them on an H100.
DEFAULTS = {"LLM_CLASS": 1024, "ENGINE_CONTEXT": 128}


@pytest.fixture
def asked(monkeypatch):
    """Returns what engines were started with: (arguments, context)."""
    started = []

    class Engine:
        def __init__(self, arguments, context):
            started.append((arguments, context))
            sequences = arguments["max_num_seqs"] or DEFAULTS[context]
            self.model_config = SimpleNamespace(max_model_len=4096)
            self.vllm_config = SimpleNamespace(scheduler_config=SimpleNamespace(max_num_seqs=sequences))

        @classmethod
        def from_engine_args(cls, arguments, usage_context):
            return cls(arguments, usage_context)

    contexts = SimpleNamespace(**{name: name for name in DEFAULTS})
    modules = {
        "vllm": {"SamplingParams": None},
        "vllm.engine": {},
        "vllm.engine.arg_utils": {"EngineArgs": lambda **arguments: arguments},
        "vllm.inputs": {},
        "vllm.inputs.engine": {"tokens_input": None},
        "vllm.usage": {},
        "vllm.usage.usage_lib": {"UsageContext": contexts},
        "vllm.v1": {},
        "vllm.v1.engine": {},
        "vllm.v1.engine.llm_engine": {"LLMEngine": Engine},
    }
    for name, members in modules.items():
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    noise = ModuleType("dgr_lightning.engines.vllm.noise")
    noise.RequestNoise = "noise"
    monkeypatch.setitem(sys.modules, noise.__name__, noise)
    return started


def start(device, tmp_path, **settings) -> Worker:
    engine = EngineConfig(name="vllm", precision="bf16", **settings)
    return Worker(Setup(engine_arguments(tmp_path, engine, device, False), device))


def test_on_a_gpu_sequences_and_tokens_of_a_step_are_those_of_vllms_own_offline_class(asked, tmp_path):
    worker = start("cuda", tmp_path)
    (arguments, context) = asked.pop()
    assert arguments["max_num_seqs"] is None and "max_num_batched_tokens" not in arguments and context == "LLM_CLASS"
    assert (worker.max_length, worker.batch_size) == (4096, 1024), "told to the parent, which keeps twice as many open"
    assert start("cuda", tmp_path, batch_size=8).batch_size == 8


def test_on_a_cpu_they_stay_small(asked, tmp_path):
    assert start("cpu", tmp_path).batch_size == 128
    (arguments, context) = asked.pop()
    assert arguments["max_num_seqs"] == 128 and context == "ENGINE_CONTEXT"
    assert arguments["logits_processors"] == ["noise"]
