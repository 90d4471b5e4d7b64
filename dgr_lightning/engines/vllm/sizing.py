"""How many devices one engine is split over: `engine.tensor_parallel=auto`.

A device that is filled by weights has little room for keys and values, and decodes a handful of sequences at a time, each step
as slow as reading all weights is. Split over more devices, every device has fewer weights and more room; split further than
that, engines side by side are faster, since they need not exchange anything after every layer. So `auto` is the smallest power
of two at which a batch fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dgr_lightning.config import EngineConfig
from dgr_lightning.models.attention_shape import AttentionShape

GIB = 2**30

# A batch: enough sequences for a step to be worth reading the weights, each as long as traces of reasoning models often are.
SEQUENCES, TOKENS = 32, 4096
# Of each device, for activations, CUDA graphs, the process group and what vLLM keeps besides weights, keys and values.
RESERVED_BYTES = 3 * GIB

_BYTES = {"bf16": 2, "fp32": 4}


@dataclass(frozen=True)
class ModelSize:
    """What of a model takes memory in generation.

    Attributes:
        num_parameters: of all weights.
        num_layers: of the decoder.
        num_heads: attention heads of a layer.
        num_kv_heads: heads of keys and values of a layer.
        head_dim: components of a head.
        bytes_each: of a weight, and of a component of a key or value.
    """

    num_parameters: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    bytes_each: int

    @classmethod
    def of(cls, folder: Path, precision: str, trust_remote_code: bool = False) -> ModelSize:
        """Reads the size of a model from its config and the headers of its weights, without loading any.

        Args:
            folder: local Hugging Face folder.
            precision: `bf16` or `fp32`.
            trust_remote_code: run code that lies in the folder.

        Raises:
            UserError: it is not a complete model.
        """
        from dgr_lightning.models.weights import load_config

        config = load_config(folder, trust_remote_code).get_text_config()
        return cls.of_shape(_num_parameters(folder), AttentionShape.of(config), _BYTES[precision])

    @classmethod
    def of_shape(cls, num_parameters: int, shape: AttentionShape, bytes_each: int) -> ModelSize:
        """Returns the size of a model with such attention; for the numbers see the attributes."""
        return cls(num_parameters, shape.num_layers, shape.num_heads, shape.num_kv_heads, shape.head_dim, bytes_each)

    def num_sequences(self, size: int, device_bytes: float, tokens: int) -> int:
        """Returns how many sequences fit into an engine at once, beside the weights.

        Args:
            size: devices that it is split over. Where there are more of them than heads of keys and values, vLLM keeps copies.
            device_bytes: that it may take of each device.
            tokens: of a sequence.
        """
        room = device_bytes - self.num_parameters * self.bytes_each / size - RESERVED_BYTES
        heads_each = -(-self.num_kv_heads // size)
        return max(0, int(room // (2 * self.num_layers * heads_each * self.head_dim * self.bytes_each * tokens)))


def tensor_parallel_size(model: ModelSize, engine: EngineConfig, device_bytes: int, num_devices: int) -> int:
    """Returns the smallest power of two at which the weights and a batch fit into `engine.memory` of every device.

    Args:
        model: what takes memory.
        engine: `memory` is read; `batch_size` and `max_length`, where they make a batch smaller; `replicas`, which have to find
            devices.
        device_bytes: memory of the smallest device.
        num_devices: that can exchange tensors quickly: those of a machine.

    Returns:
        A number that divides the devices and the attention heads; the largest such where no batch fits.
    """
    wanted, tokens = _batch(engine)
    sizes = [
        size
        for size in (2**exponent for exponent in range(num_devices.bit_length()))
        if num_devices % size == 0 and model.num_heads % size == 0 and size * (engine.replicas or 1) <= num_devices
    ] or [1]
    fitting = (size for size in sizes if model.num_sequences(size, engine.memory * device_bytes, tokens) >= wanted)
    return next(fitting, sizes[-1])


def explanation(model: ModelSize, engine: EngineConfig, device_bytes: int, size: int) -> str:
    """Returns the line that tells why an engine is split over `size` devices."""
    _, tokens = _batch(engine)
    there, alone = (model.num_sequences(number, engine.memory * device_bytes, tokens) for number in (size, 1))
    weights = model.num_parameters * model.bytes_each / GIB
    return (
        f"tensor parallel over {size} devices: beside {weights:.1f} GiB of weights, {device_bytes / GIB:.0f} GiB have room for "
        f"{alone} sequences of {tokens:,} tokens, {size} such devices for {there} (engine.tensor_parallel=auto)"
    )


def _batch(engine: EngineConfig) -> tuple[int, int]:
    """Returns how many sequences have to fit, and the tokens of each."""
    return min(SEQUENCES, engine.batch_size or SEQUENCES), min(TOKENS, engine.max_length or TOKENS)


def _num_parameters(folder: Path) -> int:
    from safetensors import safe_open

    from dgr_lightning.models.folder import weight_files

    def size(shape: Sequence[int]) -> int:
        number = 1
        for dimension in shape:
            number *= dimension
        return number

    total = 0
    for file in weight_files(folder, str(folder)):
        with safe_open(file, framework="np") as weights:
            total += sum(size(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    return total
