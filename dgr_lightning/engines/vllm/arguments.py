"""The arguments of vLLM, for engine=vllm and engine=ray alike: those of `EngineArgs` and of `SamplingParams`.

vLLM is imported only where a request is made, in the process that runs it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dgr_lightning.engines.vllm.messages import Generate, Score

if TYPE_CHECKING:
    from dgr_lightning.config import EngineConfig

_DTYPES = {"bf16": "bfloat16", "fp32": "float32"}


def engine_arguments(folder: Path, engine: EngineConfig, device: str, trust_remote_code: bool) -> dict[str, Any]:
    """Returns the arguments of `EngineArgs`.

    Args:
        folder: of the model.
        engine: its precision is a value, not `auto`.
        device: `cpu` or `cuda`.
        trust_remote_code: run code that lies in the folder.
    """
    return {
        "model": str(folder),
        "trust_remote_code": trust_remote_code,
        "load_format": "safetensors",
        "dtype": _DTYPES[engine.precision],
        # Tokens go in and come out. transformers' AutoTokenizer, which vLLM would load, breaks some of them.
        "skip_tokenizer_init": True,
        # Each request names its stop tokens.
        "generation_config": "vllm",
        # -1: as long as the model's positions and the memory allow.
        "max_model_len": engine.max_length or -1,
        # None: vLLM's own number for the device, such as 1,024 on an H100.
        "max_num_seqs": engine.batch_size if device == "cuda" else engine.num_sequences,
        "gpu_memory_utilization": engine.memory,
        "tensor_parallel_size": engine.devices_each,
        "enforce_eager": not engine.compile,
        "enable_prefix_caching": True,
        # Scores go before generations, see `vllm.worker`.
        "scheduling_policy": "priority",
        "disable_log_stats": True,
        "seed": 0,
    }


def sampling_arguments(request: Generate, *, on_cpu: bool) -> dict[str, Any]:
    """Returns the arguments of `SamplingParams` for a prompt to complete."""
    arguments = _common_arguments() | {"max_tokens": request.max_tokens, "stop_token_ids": list(request.stop_ids)}
    if request.temperature > 0 and on_cpu:
        from dgr_lightning.engines.vllm.noise import noise_arguments

        arguments["extra_args"] = noise_arguments(request)
        return arguments  # the penalty too: vLLM's own comes after the token is chosen
    arguments |= {"repetition_penalty": request.repetition_penalty} if request.repetition_penalty != 1 else {}
    if request.temperature > 0:
        # Without the sign, since vLLM takes a seed of -1 for none.
        seed = request.stream & (2**63 - 1)
        arguments |= {"temperature": request.temperature, "top_p": request.top_p, "seed": seed}
        arguments |= {"top_k": request.top_k} if request.top_k else {}
    return arguments


def scoring_arguments(request: Score) -> dict[str, Any]:
    """Returns the arguments of `SamplingParams` for a sequence to score, whose last token is left out of the prompt.

    The log-probability of that token is requested as that of the first generated token, so that a sequence as long as the
    model's positions can be scored.
    """
    arguments = _common_arguments() | {"max_tokens": 1, "logprob_token_ids": [request.ids[-1]]}
    if len(request.ids) - 1 > request.num_prompt:
        arguments["prompt_logprobs"] = 0
    return arguments


def _common_arguments() -> dict[str, Any]:
    from vllm.sampling_params import RequestOutputKind

    return {
        "temperature": 0.0,
        "ignore_eos": True,
        "detokenize": False,
        # One output a request, not one a token. Besides, it is of no type that Arrow knows, so that Ray passes the dictionary
        # on as it is: Arrow would turn whole numbers that stand beside a float into floats.
        "output_kind": RequestOutputKind.FINAL_ONLY,
    }
