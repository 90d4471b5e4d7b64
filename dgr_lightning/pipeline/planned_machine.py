"""The machine that a run is planned on, which need not be this one, and the engines on it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from dgr_lightning.config import Config
from dgr_lightning.config.setting import AUTO
from dgr_lightning.distributed.planned_device import PlannedDevice
from dgr_lightning.engines.decoding_time import EngineMachine
from dgr_lightning.engines.vllm.sizing import ModelSize, tensor_parallel_size
from dgr_lightning.pipeline.strategy_choice import choose_strategy

_LARGE_BYTES, _LARGE_BATCH, _BATCH = 70 * 2**30, 1024, 256
"""From this memory on vLLM decodes so many sequences at once by itself (`engine.batch_size=null`); with less, so many."""


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
        """Returns the machine of a `planned_config`.

        Raises:
            UserError: `trainer.device_name` is unknown.
        """
        trainer = cfg.trainer
        assert trainer.devices is not None, "planned_config gives it a value"
        return cls(PlannedDevice.of(trainer), trainer.nodes * trainer.devices, trainer.nodes)

    def __str__(self) -> str:
        """Returns it for a title."""
        return "this CPU" if self.planned is None else f"{self.devices} × {self.planned.device.name}"

    def engines(self, cfg: Config, size: ModelSize) -> EngineMachine | None:
        """Returns the engines of a run; None where their speed is not known here: on a CPU, and behind a server."""
        if self.planned is None or cfg.engine.name == "server":
            return None
        device = self.planned.device
        memory = device.memory_gib * 2**30
        alone = cfg.engine.name == "transformers"  # one engine on one device of each node
        each = 1
        if not alone:
            asked = cfg.engine.tensor_parallel
            on_a_node = self.devices // self.nodes
            each = tensor_parallel_size(size, cfg.engine, memory, on_a_node) if asked == AUTO else asked
        batch = _LARGE_BATCH if memory >= _LARGE_BYTES else _BATCH
        return EngineMachine(
            num_engines=self.nodes if alone else cfg.engine.replicas or max(1, self.devices // each),
            devices_each=each,
            flops=device.bf16_flops,
            bandwidth=device.memory_bandwidth,
            memory_bytes=cfg.engine.memory * memory,
            num_sequences=cfg.engine.num_sequences if alone else cfg.engine.batch_size or batch,
        )


def planned_config(cfg: Config, folder: Path) -> Config:
    """Returns a config as it would be resolved on the machine that it describes: no `auto` in `trainer` but those of memory.

    Args:
        cfg: a checked config.
        folder: of the model, of which config.json is read.
    """
    from dgr_lightning.distributed.devices import planned, resolve_compile

    cfg = replace(cfg, trainer=planned(cfg.trainer))
    resolve_compile(cfg.trainer, cfg.tuning.method, planned=True)
    if cfg.trainer.strategy == AUTO:
        strategy, _ = choose_strategy(cfg, lambda: folder)
        cfg = replace(cfg, trainer=replace(cfg.trainer, strategy=strategy))
    return cfg
