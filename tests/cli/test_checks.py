"""Which method, optimizer and strategy go together."""

import itertools

import pytest

from dgr_lightning.cli import checks
from dgr_lightning.cli.checks import check_tuning
from dgr_lightning.cli.compose import compose
from dgr_lightning.cli.registries import members
from dgr_lightning.config import Config, schema
from dgr_lightning.config.keys import keys
from dgr_lightning.errors import UserError
from dgr_lightning.training.optimizer import OPTIMIZERS


def config(method: str, optimizer: str, strategy: str, **tuning: str) -> Config:
    cfg = Config()
    cfg.tuning.method, cfg.sft.optimizer = method, optimizer
    cfg.trainer.strategy = strategy
    for key, value in tuning.items():
        setattr(cfg.tuning, key, value)
    return cfg


def test_every_pair_but_the_impossible_ones_goes_through():
    refused = set()
    for pair in itertools.product(("full", "lora", "qlora"), OPTIMIZERS.names(), ("single", "ddp", "fsdp")):
        try:
            check_tuning(config(*pair))
        except UserError:
            refused.add(pair)
    sharded = {pair for pair in refused if pair[2] == "fsdp" and pair[1] != "muon"}
    assert {pair[1] for pair in sharded} == {"adamw8bit", "paged-adamw", "paged-adamw8bit"} and len(sharded) == 9
    assert refused - sharded == set(itertools.product(("lora", "qlora"), ["muon"], ("single", "ddp", "fsdp")))


def test_the_help_of_the_key_names_every_optimizer():
    text = schema.expected("sft.optimizer", keys()["sft.optimizer"], members())
    assert text == f"one of {', '.join(OPTIMIZERS.names())}, or your own package.module:Name"


@pytest.mark.parametrize(
    ("optimizer", "instead"),
    [("adamw8bit", "adamw8bit-torchao"), ("paged-adamw8bit", "adamw8bit-torchao"), ("paged-adamw", "adamw")],
)
def test_states_that_cannot_be_sharded_are_refused_with_one_that_can(optimizer, instead):
    with pytest.raises(
        UserError, match=rf"^sft\.optimizer={optimizer} with trainer\.strategy=fsdp.* sft\.optimizer={instead},"
    ):
        check_tuning(config("full", optimizer, "fsdp"))


@pytest.mark.parametrize(("precision", "good"), [("bf16", "bf16"), ("fp32", "fp32"), ("auto", "auto")])
def test_sharded_4_bit_weights_are_packed_into_the_type_of_the_computation(precision, good):
    for storage in ("auto", "bf16", "fp32", "uint8"):
        cfg = config("qlora", "adamw", "fsdp", quant_storage=storage)
        cfg.trainer.precision = precision
        if storage in ("auto", good):
            check_tuning(cfg)
            continue
        with pytest.raises(
            UserError, match=rf"^tuning\.quant_storage={storage} with trainer\.strategy=fsdp.*quant_storage=auto"
        ):
            check_tuning(cfg)
        cfg.trainer.strategy = "ddp"
        check_tuning(cfg)


@pytest.mark.parametrize(
    ("package", "method", "optimizer", "named"),
    [
        ("peft", "lora", "adamw", "tuning=lora"),
        ("bitsandbytes", "qlora", "adamw", "tuning=qlora"),
        ("bitsandbytes", "full", "paged-adamw", "sft.optimizer=paged-adamw"),
        ("torchao", "full", "adamw8bit-torchao", "sft.optimizer=adamw8bit-torchao"),
    ],
)
def test_a_package_that_is_not_installed_is_named_with_what_installs_it(monkeypatch, package, method, optimizer, named):
    monkeypatch.setattr(checks, "find_spec", lambda name: None if name == package else object())
    check_tuning(config("full", "adamw", "single"))
    with pytest.raises(UserError, match=rf"^{named}: {package} is not installed.*requirements\.txt"):
        check_tuning(config(method, optimizer, "single"))


def test_layers_are_numbers_or_shares():
    for layers in ("0-0", "16-31", "33%-67%", "0%-100%", "33.3%-66.7%"):
        assert compose("train", ["tuning=lora", f"tuning.layers={layers}"]).tuning.layers == layers
