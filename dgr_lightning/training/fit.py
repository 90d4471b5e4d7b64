"""A training from model folder to model folder: curves from step 0, checkpoints, and a resume that changes nothing.

On the CPU a training that was interrupted and resumed ends in the same weights, bit for bit, as one that was not. All ranks
call `fit`; the first one writes files and prints.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from lightning.pytorch import Callback, Trainer

from dgr_lightning.config import Config, SftConfig, TrainerConfig
from dgr_lightning.console import progress, say
from dgr_lightning.distributed import fsdp
from dgr_lightning.distributed.ranks import Ranks, compute_device, init_group, lightning_strategy
from dgr_lightning.errors import UserError
from dgr_lightning.example import Example, RefinedExample
from dgr_lightning.processes import keep_freed_memory
from dgr_lightning.training import adapters, tuning
from dgr_lightning.training.checkpoint_folder import FOLDER
from dgr_lightning.training.checkpoints import Checkpoints
from dgr_lightning.training.curves import Curves
from dgr_lightning.training.export import export
from dgr_lightning.training.flops import peak_memory_bytes
from dgr_lightning.training.interrupts import Interrupts
from dgr_lightning.training.memory_rows import RowsMemory
from dgr_lightning.training.model_card import model_card
from dgr_lightning.training.packing import StepLoader, collate
from dgr_lightning.training.probe_schedule import probe_share, share_warning
from dgr_lightning.training.recorder import Probe, Recorder, quiet_lightning
from dgr_lightning.training.rehearsal import Rehearsal
from dgr_lightning.training.sft import BARE_TRAINER, SafetySft
from dgr_lightning.training.wandb import wandb_settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from dgr_lightning.models.chat import Chat, Encoded

SILENT_CHARACTERS = 4_000_000  # less text than this is encoded too fast for a progress bar
_CHECKED_STEPS = 50  # steps whose padding is checked before training
_HIGH_PADDING = 0.25
_REHEARSING = ("cuda",)


@dataclass(frozen=True)
class TrainingResult:
    """The figures of a training; `training` of summary.json.

    Attributes:
        steps: optimizer steps.
        target_tokens: target tokens, over all steps.
        tokens_per_second: tokens of documents, prompts included, per second spent in optimizer steps, on all ranks; probes and
            checkpoints are not counted.
        peak_memory_bytes: of the rank that needed most: on a GPU the most that torch had allocated during training, on the CPU
            the most that the process ever held.
        loss_first: loss of the first optimizer step.
        loss_last: loss of the last one.
        resumed_from_step: 0 for an undisturbed run.
        probe_seconds: seconds in probes, those before a resume included.
        probe_share: their share of the time in probes and optimizer steps.
    """

    steps: int
    target_tokens: int
    tokens_per_second: float
    peak_memory_bytes: int
    loss_first: float
    loss_last: float
    resumed_from_step: int
    probe_seconds: float
    probe_share: float


def fit(
    model_folder: Path,
    chat: Chat,
    examples: Sequence[Example],
    cfg: Config,
    run_dir: Path,
    probe: Probe | None = None,
    run_hash: str | None = None,
) -> TrainingResult:
    """Trains a model on a refined set and writes `metrics.csv`, `checkpoints/` and `model/` in the run directory. Collective.

    Called again after a crash, it resumes from the latest complete checkpoint.

    Args:
        model_folder: the base model.
        chat: its tokenizer and template.
        examples: the refined set.
        cfg: `seed`, `tuning`, `sft`, `trainer`, `probes.every` and `logger` are read; of `trainer` only `checkpoint_every` may
            be `auto`.
        run_dir: where all files go.
        probe: called with the live model and the step, before the first step, every `probes.every` steps and after the last;
            what it returns goes into the curves.
        run_hash: identity of the run for W&B and the model card; by default the name of its directory.

    Raises:
        UserError: no example, an example that does not fit into `sft.max_length`, or a device without enough memory.
    """
    if not examples:
        raise UserError("There is no example to train on; with refine.on_failure=drop every one may have been dropped.")
    ranks = Ranks.here(cfg.trainer.tensor_parallel)
    device = compute_device(cfg.trainer, ranks)
    _prepare_process(cfg.seed, device)
    encoded = _encode(chat, examples, cfg.sft)
    loader = _loader(encoded, cfg, ranks)
    _warn_of_unused(loader, cfg, ranks)
    init_group(cfg.trainer, ranks)
    memory = RowsMemory(model_folder, cfg, partial(_loader, encoded), ranks)
    module = _module(model_folder, cfg, loader.num_steps, ranks, device, memory)
    checkpoints = Checkpoints(run_dir / FOLDER, ranks, cfg.trainer.keep_checkpoints)
    start = max(checkpoints.steps(), default=0)
    settings = wandb_settings(cfg, run_dir, run_hash or run_dir.name)
    with (
        Curves(run_dir / "metrics.csv", start, settings) if ranks.is_first else nullcontext() as curves,
        progress("training", loader.num_steps, start) as advance,
        quiet_lightning(),
        Interrupts() as interrupts,
    ):
        recorder = Recorder(cfg, checkpoints, curves, probe, advance, loader)
        callbacks = [interrupts, *_rehearsal(loader, memory, device, cfg.sft), recorder]
        try:
            _trainer(cfg.trainer, ranks, callbacks, run_dir).fit(module, loader)
        except torch.OutOfMemoryError as error:
            raise memory.out_of_memory(error) from error
    totals = module.totals
    result = TrainingResult(
        steps=loader.num_steps,
        target_tokens=totals.target_tokens,
        tokens_per_second=totals.tokens / totals.seconds,
        peak_memory_bytes=max(ranks.all_gather(peak_memory_bytes(device))),
        loss_first=totals.loss_first,
        loss_last=totals.loss_last,
        resumed_from_step=recorder.resumed_from_step,
        probe_seconds=totals.probe_seconds,
        probe_share=probe_share(totals.probe_seconds, totals.seconds),
    )
    if warning := share_warning(totals.probe_seconds, totals.seconds, cfg.probes.size, cfg.probes.max_new_tokens):
        say(f"[yellow]{warning}[/]")
    rewritten = any(isinstance(example, RefinedExample) and example.refined for example in examples)
    card = model_card(cfg, run_hash or run_dir.name, asdict(result), rewritten=rewritten)
    export(module.model, model_folder, run_dir / "model", ranks, card, chat.identity)
    return result


def _prepare_process(seed: int, device: torch.device) -> None:
    torch.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.cuda.reset_peak_memory_stats()
    else:
        keep_freed_memory()


def _encode(chat: Chat, examples: Sequence[Example], sft: SftConfig) -> list[Encoded]:
    def encode(example: Example) -> Encoded:
        try:
            texts = example.prompt, example.trace, example.answer
            return chat.encode(*texts, sft.max_length, truncate=sft.truncate, append_eos=sft.append_eos)
        except UserError as error:
            raise UserError(f"{example.id}: {error}") from error

    size = sum(len(example.prompt) + len(example.trace) + len(example.answer) for example in examples)
    if size < SILENT_CHARACTERS:
        return [encode(example) for example in examples]
    encoded = []
    with progress("encoding", len(examples)) as advance:
        for example in examples:
            encoded.append(encode(example))
            advance(1)
    return encoded


def _loader(encoded: Sequence[Encoded], cfg: Config, ranks: Ranks) -> StepLoader:
    return StepLoader(
        encoded,
        batch_size=cfg.sft.batch_size,
        max_tokens=cfg.sft.max_tokens,
        seed=cfg.seed,
        epochs=cfg.sft.epochs,
        max_steps=cfg.sft.max_steps,
        mean_of=cfg.sft.loss_mean,
        few_lengths=cfg.trainer.compile is True,
        rank=ranks.data_rank,
        num_ranks=ranks.data_size,
    )


def _warn_of_unused(loader: StepLoader, cfg: Config, ranks: Ranks) -> None:
    """Warns of truncated traces, of examples that no step reaches, and of rows that are padding to a large part."""
    if truncated := [example.num_truncated for example in loader.encoded if example.num_truncated]:
        lost = "traces lose" if cfg.sft.truncate == "trace" else "beginnings lose"
        say(
            f"[yellow]sft.max_length={cfg.sft.max_length}: {len(truncated)} of {len(loader.encoded)} examples are longer; "
            f"their {lost} {sum(truncated):,} tokens in all[/]"
        )
    seen = loader.num_seen()
    if seen < len(loader.encoded):
        say(
            f"[yellow]sft.max_steps={cfg.sft.max_steps} ends within the first epoch: {len(loader.encoded) - seen} of "
            f"{len(loader.encoded)} examples are never trained on[/]"
        )
    if (fraction := loader.padding_fraction(_CHECKED_STEPS)) > _HIGH_PADDING:
        remedy = "a larger sft.batch_size or fewer devices" if ranks.data_size > 1 else "a larger sft.max_tokens"
        say(f"[yellow]{fraction:.0%} of the tokens in packed rows are padding: {remedy} would reduce it[/]")


def _rehearsal(loader: StepLoader, memory: RowsMemory, device: torch.device, sft: SftConfig) -> list[Callback]:
    """Returns the rehearsal of the largest row; none where the device's memory is the machine's, which can be swapped."""
    if device.type not in _REHEARSING:
        return []
    row = loader.largest_row()
    states = 0 if memory.fit is None else memory.fit.plan.states
    return [Rehearsal(collate(row.documents, sft.loss_mean, few_lengths=row.few_lengths), 2 if row.several else 1, states)]


def _module(folder: Path, cfg: Config, num_steps: int, ranks: Ranks, device: torch.device, memory: RowsMemory) -> SafetySft:
    """Returns the training of a folder's model; a sharded one has no values yet."""
    precision, code = cfg.trainer.precision, cfg.model.trust_remote_code
    sharded = cfg.trainer.strategy == "fsdp"
    # 4-bit weights are quantized as they are loaded, so every rank loads all of them before it keeps its shard.
    empty = sharded and cfg.tuning.method != "qlora"
    if empty:
        model = tuning.empty(folder, cfg.tuning, precision, code)
    else:
        model = tuning.load(folder, cfg.tuning, precision, str(device), cfg.seed, code)

    trainer = replace(cfg.trainer, reshard_after_forward=memory.reshard_after_forward)

    def shard(model: PreTrainedModel) -> None:
        fsdp.shard(model, folder if empty else None, trainer, precision, device)
        if empty and cfg.tuning.method != "full":
            adapters.initialize(model, cfg.seed)

    fsdp.recompute(model, memory.recompute_every)
    if cfg.trainer.compile is True:
        fsdp.compile_layers(model)
    return SafetySft(model, cfg.sft, num_steps, precision, ranks, shard if sharded else None)


def _trainer(trainer: TrainerConfig, ranks: Ranks, callbacks: list[Callback], run_dir: Path) -> Trainer:
    """Returns Lightning's trainer of one long epoch, whose batches are optimizer steps."""
    assert trainer.devices is not None, "trainer.devices is resolved before training"
    strategy, environment = lightning_strategy(trainer, ranks)
    return Trainer(
        accelerator="gpu" if trainer.accelerator == "cuda" else "cpu",
        devices=trainer.devices,
        num_nodes=trainer.nodes,
        strategy=strategy,
        max_epochs=1,
        callbacks=callbacks,
        plugins=[environment],
        default_root_dir=run_dir,
        **BARE_TRAINER,
    )
