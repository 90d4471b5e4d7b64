"""Command lines: whatever is on one, it becomes a config in the types of the schema, or one message."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from dgr_lightning.cli.overrides import read_command_line
from dgr_lightning.cli.registries import members
from dgr_lightning.config import Config, schema
from dgr_lightning.errors import UserError

SEEDS = [
    text.encode()
    for text in (
        "sft.lr=1e-3",
        "evaluation.tasks=[micro-short,micro-long]",
        "data.keep={label: benign}",
        "+sft.betas=[0.9,0.95]\0name='a b'",
        "-m\0seed=1,2\0refine=vanilla,dgr",
        "-m\0seed=range(1,5,2)\0sft.lr=choice(1e-3,2e-3)",
        "-m\0model=glob(micro*)\0seed=shuffle(1,2)",
        "data.mix=[{data: micro-r1act, share: 0.5},{data: micro-retention, share: .5, keep: {a: null}}]",
        "name=${oc.env:HOME}",
        "hydra.run.dir=out/${seed}",
        "model.path=/not/there\0data.path='~/rows.jsonl'",
        "~sft.lr\0data@x=star1",
        "--cfg\0job\0--package\0sft",
        'logger.project="a, \\"b\\""',
        "seed=int(3.0)\0overwrite=true\0data.limit=null",
        "trainer.devices=0x10\0sft.max_steps=1_000",
    )
]


def check(data: bytes) -> None:
    """Reads bytes as a command line, arguments apart by NUL."""
    check_line(data.decode("utf-8", "surrogateescape").split("\0"))


def check_line(arguments: list[str]) -> None:
    """Reads a command line, and builds a config of its plain values."""
    try:
        line = read_command_line(arguments, "train")
        for override in line.overrides:
            assert "=" in override, override
        built = schema.build(_nested(line.overrides), members())
    except UserError as error:
        assert str(error).strip()
        return
    assert isinstance(built, Config)
    again = schema.build(asdict(built), members())
    assert again == built, "a config that is not its own"


def _nested(overrides: list[str]) -> dict[str, Any]:
    """Returns the values of keys that are given one, as composition would nest them."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    plain: dict[str, Any] = {}
    parser = OverridesParser.create()
    for text in overrides:
        override = parser.parse_override(text)
        if not text.startswith("++") or override.is_sweep_override():
            continue
        *sections, last = override.key_or_group.split(".")
        node: Any = plain
        for section in sections:
            node = node.setdefault(section, {})
            if not isinstance(node, dict):
                break
        else:
            node[last] = override.value()
    return plain
