"""The machine that a run is planned on, and the engines on it."""

from __future__ import annotations

from dataclasses import dataclass

from dgr_lightning.config import Config
from dgr_lightning.distributed.planned_device import PlannedDevice
from dgr_lightning.engines.decoding_time import STEP_SECONDS, EngineMachine
from dgr_lightning.engines.vllm.sizing import ModelSize, sequences_at_once, tensor_parallel_size


@dataclass(frozen=True)
class Machine:
    """What a run is planned on.

    Attributes:
        planned: the GPU; None on a CPU.
        devices: of all nodes.
        nodes: machines.
    """

    planned: PlannedDevice | None
    devices: int
    nodes: int

    @classmethod
    def of(cls, cfg: Config) -> Machine:
        """Returns the machine of a config; without a number of devices, as many as are here.

        Raises:
            UserError: `trainer.device_name` is unknown.
        """
        import torch

        trainer = cfg.trainer
        here = max(1, torch.cuda.device_count()) if trainer.accelerator != "cpu" else 1
        return cls(PlannedDevice.of(trainer), trainer.nodes * (trainer.devices or here), trainer.nodes)

    def __str__(self) -> str:
        """Returns it for a title."""
        return "this CPU" if self.planned is None else f"{self.devices} × {self.planned.device.name}"

    def engines(self, cfg: Config, model: ModelSize) -> EngineMachine | None:
        """Returns the engines of a run over a model; None where their speed is not known: on a CPU, and behind a server."""
        if self.planned is None or cfg.engine.name == "server":
            return None
        alone = cfg.engine.name == "transformers"  # one engine on one device of each node
        device = self.planned.device
        memory, here = int(device.memory_gib * 2**30), max(1, self.devices // self.nodes)
        each = 1 if alone else number(cfg.engine.tensor_parallel, tensor_parallel_size(model, cfg.engine, memory, here))
        return EngineMachine(
            num_engines=self.nodes if alone else cfg.engine.replicas or max(1, self.devices // each),
            devices_each=each,
            flops=device.bf16_flops,
            bandwidth=device.memory_bandwidth,
            memory_bytes=cfg.engine.memory * memory,
            num_sequences=cfg.engine.num_sequences if alone else sequences_at_once(cfg.engine, memory, device.name),
            step_seconds=STEP_SECONDS["transformers" if alone else "vllm"],
        )


def number(value: int | str, of_auto: int) -> int:
    """Returns a key's number; of its `auto`, what it is taken for."""
    return of_auto if isinstance(value, str) else value
