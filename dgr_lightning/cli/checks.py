"""Checks over several keys at once: impossible pairs, missing paths, packages that are not installed.

Every message is one sentence that begins with the override to change and says what it takes. Nothing heavy is imported, only
directory entries are read.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

from dgr_lightning.cli.evaluation_checks import check_checkpoints, check_evaluation, check_judge
from dgr_lightning.cli.mixture import check_mixture
from dgr_lightning.cli.names import check_names
from dgr_lightning.cli.path_checks import check_file, check_folder_path
from dgr_lightning.config import LAYER_RANGE, Config, FieldsConfig, ModelConfig, TrainerConfig
from dgr_lightning.distributed import device_table, torchrun
from dgr_lightning.errors import UserError
from dgr_lightning.example import LABELS
from dgr_lightning.files import exists, local_path
from dgr_lightning.installation import script_name
from dgr_lightning.models.adapter_folder import base_of, check_adapter, is_adapter
from dgr_lightning.models.folder import ADAPTER_CONFIG
from dgr_lightning.pipeline.served_model import is_served
from dgr_lightning.training.optimizer import OPTIMIZERS

_EXAMPLES = {"bases": "[0,1,2,3,4]", "seeds": "[1,2]", "lrs": "[5e-4,1e-3,2e-3]", "precisions": "[bf16,fp32]"}


def prefer_local(cfg: Config) -> None:
    """Lets a local copy take the place of what the chosen model and data name: hub id, commit and recipe become null."""
    model, benign = cfg.model, cfg.data.benign
    if model.path is not None:
        model.hub_id = model.revision = None
    if model.path is not None or model.hub_id is not None:
        model.recipe = None
    for source in (cfg.data, *cfg.data.mix):
        if source.path is not None:
            source.hub_id = source.revision = None
        if source.path is not None or source.hub_id is not None:
            source.recipe = None
    if benign.path is not None:
        benign.hub_id = benign.revision = None


def check(cfg: Config, command: str) -> None:
    """Checks pairs of keys, and every path that a command will read.

    Args:
        cfg: a config that `prefer_local` has been through.
        command: `train`, `refine` or `evaluate`; keys that it does not read are not checked.

    Raises:
        UserError: the message names the override to change.
    """
    check_names(cfg, command)
    for key, seed in (
        ("seed", cfg.seed),
        ("model.seed", cfg.model.seed),
        ("refine.seed", cfg.refine.seed),
        ("evaluation.seed", cfg.evaluation.seed),
    ):
        if seed >= 2**32:
            raise UserError(f"{key}={seed}: expected a whole number below 2^32, which is what seeds the generators.")
    _check_study(cfg, command)
    _check_shift(cfg, command)
    if cfg.plan and command == "evaluate":
        reading = f"{script_name('train')} or {script_name('refine')}"
        raise UserError(f"plan=true: {script_name('evaluate')} reads no source set; give it to {reading}.")
    check_checkpoints(cfg, command)
    _check_model(cfg, command)
    _check_device_name(cfg.trainer.device_name)
    check_devices(cfg.trainer, planned=cfg.plan)
    from dgr_lightning.engines.registry import check_engine

    check_engine(cfg)
    if command == "train":
        check_tuning(cfg)
    if command != "evaluate":
        _check_data(cfg, command)
        _check_refine(cfg)
    if command != "refine":
        check_evaluation(cfg)
    if command == "train" and cfg.sft.select is not None:
        _check_selection(cfg)
    check_judge(cfg)


def _check_study(cfg: Config, command: str) -> None:
    study = cfg.study
    if study.name is None:
        return
    if command != "train":
        raise UserError(f"study.name={study.name}: a study trains; run it with {script_name('train')}.")
    if cfg.model.recipe is None:
        raise UserError(f"study.name={study.name}: bases are miniatures of several seeds; take model=micro.")
    for key in ("bases", "seeds", "lrs", "precisions"):
        values = getattr(study, key)
        if not values or len(set(values)) < len(values):
            raise UserError(f"study.{key}={values}: expected a list of different values, such as study.{key}={_EXAMPLES[key]}.")
    if not all(lr > 0 for lr in study.lrs):
        raise UserError(f"study.lrs={study.lrs}: expected learning rates above 0.")
    if unknown := set(study.precisions) - {"bf16", "fp32"}:
        raise UserError(f"study.precisions: no precision {', '.join(sorted(unknown))}; expected bf16, fp32 or both.")


def _check_device_name(name: str | None) -> None:
    if name is None:
        return
    try:
        device_table.named(name)
    except UserError as error:
        raise UserError(f"trainer.device_name={name}: {error}") from error


def _check_shift(cfg: Config, command: str) -> None:
    if cfg.shift.tuned is None:
        return
    if command == "train":
        raise UserError(
            f"shift.tuned={cfg.shift.tuned}: {script_name('train')} compares the model that it trains; give it to "
            f"{script_name('refine')}."
        )
    if not cfg.shift.prompts:
        raise UserError(
            "shift.tuned: on how many prompts of each kind is it compared with the target? Write shift.prompts=64, say."
        )


def _check_selection(cfg: Config) -> None:
    from dgr_lightning.tasks.metrics import KINDS
    from dgr_lightning.tasks.registry import TASKS

    kinds = {TASKS[name].name: KINDS[TASKS[name].kind] for name in cfg.probes.tasks}
    curves = [f"probe/{kind.headline}" for kind in dict.fromkeys(kinds.values())]
    curves += [f"probe/{task}/{kind.metric}" for task, kind in kinds.items()]
    if not cfg.probes.every or cfg.sft.select not in curves:
        there = ", ".join(curves) if cfg.probes.every else "none, because probes.every=0"
        raise UserError(f"sft.select={cfg.sft.select}: no curve of this run's probes. There are: {there}.")


def _check_model(cfg: Config, command: str) -> None:
    from dgr_lightning.models.thinking import check_marks

    model = cfg.model
    check_marks(model.chat_style, model.think_marks)
    if model.base is not None and not (command == "evaluate" and model.path is not None and is_adapter(local_path(model.path))):
        raise UserError(
            f"model.base={model.base}: only an adapter has a base; {script_name('evaluate')} takes one with model.path=<folder "
            f"that holds {ADAPTER_CONFIG}>."
        )
    if model.path is not None:
        path = local_path(model.path)
        if not exists(path) and re.fullmatch(r"[\w.-]+/[\w.-]+", model.path):
            raise UserError(
                f"model.path={model.path}: there is no such folder. For a model on the hub: model.hub_id={model.path}."
            )
        if command == "evaluate" and is_adapter(path):
            return _check_adapter(path, model)
        served = command == "evaluate" and is_served(cfg)
        check_folder_path("model.path", model.path, weights=not (cfg.plan or served))
    elif model.recipe is None and model.hub_id is None:
        raise UserError("model=local: name the model with model.path=<Hugging Face folder> or model.hub_id=<owner/name>.")


def _check_adapter(path: Path, model: ModelConfig) -> None:
    from dgr_lightning.models.folder import check_folder

    named = f"model.path={model.path}"
    check_adapter(path, named)
    base = base_of(path, model.base, named)
    if base.folder is not None:
        check_folder(base.folder, f"{named}: its base {base.folder}")
    if find_spec("peft") is None:
        raise UserError(f"{named}: an adapter, and peft is not installed. pip install -r requirements.txt brings it.")


def check_devices(trainer: TrainerConfig, *, planned: bool = False) -> None:
    """Checks that strategy, number of devices and the options of sharding go together.

    Args:
        trainer: the section.
        planned: whether the machines may be others than this one.

    Raises:
        UserError: they do not.
    """
    script = script_name("train")
    script = script if script.endswith(".py") else f"--no-python {script}"
    if trainer.nodes > 1 and not (torchrun.is_active() or planned):
        raise UserError(
            f"trainer.nodes={trainer.nodes}: torchrun starts this on every machine: torchrun --nnodes={trainer.nodes} "
            f"--nproc-per-node=<devices> --rdzv-backend=c10d --rdzv-endpoint=<first machine>:29400 {script} "
            "trainer=fsdp-multinode …; docs/cluster.md has a Slurm script."
        )
    if trainer.strategy == "single" and (trainer.devices or 1) > 1:
        raise UserError(
            f"trainer.devices={trainer.devices} with trainer.strategy=single: one device is what single means. Take "
            "trainer=fsdp, trainer=ddp, or trainer.devices=1."
        )
    if trainer.strategy in ("single", "ddp"):
        for key, asked in (
            ("shard_size", trainer.shard_size is not None),
            ("tensor_parallel", trainer.tensor_parallel > 1),
            ("cpu_offload", trainer.cpu_offload),
            ("reshard_after_forward", trainer.reshard_after_forward is False),
        ):
            if asked:
                raise UserError(
                    f"trainer.{key} with trainer.strategy={trainer.strategy}: nothing is sharded; "
                    "take trainer=fsdp, on several devices."
                )
    if trainer.cpu_offload and trainer.accelerator == "cpu":
        raise UserError(
            "trainer.cpu_offload with trainer.accelerator=cpu: the weights are already in its memory; leave it out."
        )
    size = (trainer.devices or 0) * trainer.nodes
    if trainer.shard_size is not None and size % trainer.shard_size:
        raise UserError(f"trainer.shard_size={trainer.shard_size}: {size} devices cannot be divided into groups of that size.")
    for key, asked in (("cpu_offload", trainer.cpu_offload), ("compile", trainer.compile is True)):
        if asked and trainer.tensor_parallel > 1:
            raise UserError(f"trainer.{key} with trainer.tensor_parallel: they do not go together; leave one of them out.")
    copy = trainer.shard_size or size
    if trainer.tensor_parallel > 1 and copy % trainer.tensor_parallel:
        raise UserError(
            f"trainer.tensor_parallel={trainer.tensor_parallel}: the {copy} devices that hold the weights once cannot be "
            "divided into groups of that size."
        )


def check_tuning(cfg: Config) -> None:
    """Raises a UserError where method, optimizer and strategy do not go together, or a package for them is not installed."""
    if len(betas := cfg.sft.betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise UserError(f"sft.betas={betas}: expected two numbers of at least 0 and below 1, such as sft.betas=[0.9,0.95].")
    tuning, optimizer = cfg.tuning, OPTIMIZERS.get(cfg.sft.optimizer)
    strategy, key = cfg.trainer.strategy, f"sft.optimizer={cfg.sft.optimizer}"
    packages = [(key, optimizer.package)]
    if strategy == "fsdp" and optimizer.sharded_instead is not None:
        raise UserError(
            f"{key} with trainer.strategy=fsdp: its states cannot be sharded; write sft.optimizer={optimizer.sharded_instead}, "
            "or trainer.strategy=ddp."
        )
    if tuning.method != "full" and cfg.trainer.tensor_parallel > 1:
        raise UserError(
            f"trainer.tensor_parallel={cfg.trainer.tensor_parallel} with tuning={tuning.method}: matrices with adapters are "
            "not split. Write trainer.tensor_parallel=1, or tuning=full."
        )
    if tuning.method != "full":
        packages.append((f"tuning={tuning.method}", "peft"))
        if optimizer.not_for_adapters is not None:
            raise UserError(
                f"{key} with tuning={tuning.method}: {optimizer.not_for_adapters}. Write sft.optimizer=adamw, or tuning=full."
            )
        _check_layers(tuning.layers)
        if not tuning.target_modules:
            raise UserError("tuning.target_modules=[]: nothing to train; name modules, or write [all-linear].")
    if tuning.method == "qlora":
        packages.append(("tuning=qlora", "bitsandbytes"))
        # The computation's type is the one that sharding casts to; a cast destroys what is packed in another.
        precision = cfg.trainer.precision
        good = ("auto",) if precision == "auto" else ("auto", precision)
        if strategy == "fsdp" and tuning.quant_storage not in good:
            raise UserError(
                f"tuning.quant_storage={tuning.quant_storage} with trainer.strategy=fsdp: 4-bit weights are sharded in the "
                f"computation's own type (trainer.precision={precision}); write tuning.quant_storage=auto."
            )
    for choice, package in packages:
        if package is not None and find_spec(package) is None:
            raise UserError(f"{choice}: {package} is not installed. pip install -r requirements.txt brings it.")


def _check_layers(layers: str | None) -> None:
    if layers is None:
        return
    match = LAYER_RANGE.fullmatch(layers)
    ends = [float(end) for end in match.groups() if end is not None] if match else []
    if not ends or ends[0] > ends[1] or ("%" in layers and not ends[0] < ends[1] <= 100):
        raise UserError(
            f"tuning.layers={layers}: expected the first and the last decoder layer, such as 16-31 (counted from 0, both "
            "included), or two shares of the depth in per cent, such as 33%-67%."
        )


def _check_data(cfg: Config, command: str) -> None:
    data, model = cfg.data, cfg.model
    if data.drop_overlap and command == "refine":
        raise UserError(f"data.drop_overlap=true: {script_name('refine')} measures no model; use {script_name('train')}.")
    if data.mix:
        check_mixture(data)
    elif data.path is None and data.recipe is None and data.hub_id is None:
        if data.name == "mix":
            raise UserError("data=mix: name its parts with data.mix=[{data: star1, share: 0.8}, …].")
        raise UserError("data=local: name the rows with data.path=<jsonl, json, csv or parquet> or data.hub_id=<owner/name>.")
    check_file("data.path", data.path, folder=True)
    check_file("data.benign.path", data.benign.path, folder=True)
    for key, part in data.parts:
        check_file(f"{key}.path", part.path, folder=True)
        _check_columns(f"{key}.fields", part.fields)
    if data.language is not None and data.language != model.language:
        remedy = (
            "data=micro-directrefusal or data=micro-r1act, or model=r1-distill-7b or another real model"
            if model.language == "micro"
            else "data=directrefusal, r1act, star1, safechain or local, or model=micro"
        )
        raise UserError(
            f"data={data.name} with model={model.name}: the set is in the {data.language} language, the model speaks the "
            f"{model.language} one. Take {remedy}."
        )
    _check_columns("data.fields", data.fields)
    _check_columns("data.benign.fields", data.benign.fields)


def _check_columns(key: str, columns: FieldsConfig) -> None:
    for value, meaning in columns.labels.items():
        if meaning not in LABELS:
            raise UserError(f"{key}.labels.{value}={meaning}: expected one of {', '.join(LABELS)}.")
    if columns.response is not None:
        for name in ("trace", "answer", "constant_trace", "answer_after"):
            if getattr(columns, name) is not None:
                raise UserError(f"{key}.{name}: excludes {key}.response={columns.response}; set one of the two to null.")
    if columns.trace is not None and columns.constant_trace is not None:
        raise UserError(f"{key}.trace={columns.trace}: excludes {key}.constant_trace; set one of the two to null.")


def _check_refine(cfg: Config) -> None:
    from dgr_lightning.refinement.strategy import strategy_of

    refine, strategy = cfg.refine, strategy_of(cfg.refine)
    _check_sampling("refine", strategy.refine.tries, "tries", strategy.refine.temperature)
    for key in ("trace_template", "answer_template", "response_template", "meta_thinking"):
        check_file(f"refine.{key}", getattr(refine, key))
    shift = cfg.shift
    for key, path in (("embedding", shift.embedding), ("tuned", shift.tuned)):
        if path is not None and (key, path) != ("embedding", "target"):
            check_folder_path(f"shift.{key}", path)
    strategy.check()


def _check_sampling(section: str, count: int, key: str, temperature: float) -> None:
    if count > 1 and temperature == 0:
        raise UserError(
            f"{section}.{key}={count} with {section}.temperature=0: greedy decoding gives the same text {count} times. "
            f"Give {section}.{key}=1, or a temperature above 0."
        )
