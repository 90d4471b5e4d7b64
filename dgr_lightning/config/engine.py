"""Keys of `engine`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from dgr_lightning.config.setting import AUTO, EVERY_KIND, NEVER, Auto, setting


@dataclass
class EngineConfig:
    """The engine that generates and scores. Only name, precision and max_length determine what it returns."""

    name: str = setting(
        "auto",
        "auto takes vllm where it is installed and has its device, else transformers",
        choices=("auto",),
        hashed=EVERY_KIND,
    )
    precision: str = setting(
        "auto",
        "type of the computation; auto: bf16 where the machine has it",
        choices=("auto", "bf16", "fp32"),
        hashed=EVERY_KIND,
    )
    batch_size: Optional[int] = setting(
        None,
        "most sequences that an engine decodes at once; null: on GPUs vLLM's own number for the device, else 128; on a server, "
        "most concurrent requests",
        low=1,
        hashed=NEVER,
    )
    tensor_parallel: int | Auto = setting(
        AUTO,
        "devices that one engine's weights are split over (vllm, ray); auto: the fewest that hold them and a batch",
        low=1,
        hashed=NEVER,
    )
    replicas: Optional[int] = setting(
        None, "engines side by side (vllm, ray); null: one per GPU or tensor-parallel group", low=1, hashed=NEVER
    )
    max_length: Optional[int] = setting(
        None,
        "tokens of prompt and output together (vllm, server, ray); null: what model and memory allow",
        low=16,
        hashed=EVERY_KIND,
    )
    memory: float = setting(
        0.9, "share of each GPU's memory that an engine takes (vllm, ray)", above=0.0, high=1.0, hashed=NEVER
    )
    cpu_cache_gib: int = setting(1, "GiB for keys and values where vLLM runs on a CPU", low=1, hashed=NEVER)
    compile: bool = setting(
        True, "compile the model and capture CUDA graphs (vllm, ray): a slower start, faster tokens", hashed=NEVER
    )
    url: Optional[str] = setting(
        None, "address of an OpenAI-compatible server, such as http://127.0.0.1:8000/v1", private=True, hashed=NEVER
    )
    served_model: Optional[str] = setting(
        None,
        "name of the model on the server, often its path there; null: the only one that it serves",
        private=True,
        hashed=EVERY_KIND,
    )
    timeout_seconds: float = setting(600.0, "seconds that one request to a server may take", above=0.0, hashed=NEVER)
    retries: int = setting(
        6, "times a request to a server is retried after a transient failure, with growing pauses", low=0, hashed=NEVER
    )
    ray_address: Optional[str] = setting(
        None, "Ray cluster to join; null: RAY_ADDRESS, else one is started on this machine", private=True, hashed=NEVER
    )

    @property
    def num_sequences(self) -> int:
        """`batch_size`, where its null is no number of the engine's own: most sequences at once."""
        return self.batch_size or 128

    @property
    def devices_each(self) -> int:
        """Devices of one engine: `tensor_parallel`, whose `auto` has become a number where there are several devices."""
        return 1 if self.tensor_parallel == AUTO else self.tensor_parallel

    @property
    def identity(self) -> str:
        """The engine's part of a store key: its name and, for a server, the served model."""
        return self.name if self.served_model is None else f"{self.name} {self.served_model}"
