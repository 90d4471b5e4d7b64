"""`plan=true`: what the source set looks like to the target model, before anything is generated.

It reads the rows, and of the model its config and its tokenizer alone: no weights, no engine, no device. Tasks whose problems
are out of reach are listed and not compared. The memory of the training and the time of all stages are planned where the
device is known: `trainer.accelerator=cuda trainer.devices=8 trainer.device_name=H100` stand for one that is not there. A set
that cannot be trained on as the config stands, or a training that does not fit, ends the plan with exit code 2 and lines `try:
<overrides>` that can be pasted.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from dgr_lightning.config import Config
from dgr_lightning.console import progress, say
from dgr_lightning.data.sources import Sources
from dgr_lightning.engines.model_handle import ModelHandle
from dgr_lightning.errors import UserError
from dgr_lightning.hashes import content_hash
from dgr_lightning.models.folder import check_unquantised
from dgr_lightning.models.format_audit import demands, failed_demands
from dgr_lightning.pipeline.example_view import show_examples
from dgr_lightning.pipeline.locate_model import locate_tokenizer
from dgr_lightning.pipeline.memory_check import PlannedMemory
from dgr_lightning.pipeline.overlap import load_sources, measured_prompts, num_shared, overlap
from dgr_lightning.pipeline.place import Place
from dgr_lightning.pipeline.planned_machine import planned_config
from dgr_lightning.pipeline.row_checks import check_rows
from dgr_lightning.pipeline.set_lengths import SetLengths, set_lengths
from dgr_lightning.pipeline.time_plan import time_plan
from dgr_lightning.refinement.strategy import check_thinking
from dgr_lightning.report.memory import memory_table, show_memory
from dgr_lightning.report.plan import SetPlan, show_plan
from dgr_lightning.report.stages import show_stages

if TYPE_CHECKING:
    from dgr_lightning.models.chat import Chat

NUM_FIRST = 3
"""Rows that are shown token by token."""


def plan(cfg: Config, place: Place, *, measures: bool) -> None:
    """Shows what the source set looks like to the target model.

    Args:
        cfg: the checked config, in which an `auto` may be left.
        place: where the run would go; the first rows are written beside it.
        measures: whether the run would evaluate a model, on prompts that the set may hold.

    Raises:
        UserError: the tokenizer or the rows cannot be read, or the set cannot be trained on as the config stands.
    """
    model, folder = cfg.model, locate_tokenizer(cfg.model)
    check_unquantised(folder)
    chat = ModelHandle(folder, cfg).chat  # tokenizer and template alone; weights are never asked for
    check_thinking(cfg.refine, chat)
    unread: list[str] = []
    measured = measured_prompts(cfg, unread) if measures else {}
    source = load_sources(cfg, measured)
    check_rows(source.examples, chat)
    lengths = set_lengths(source.examples, chat, cfg)
    shared = dict.fromkeys(measured, 0) | overlap((example.prompt for example in source.examples), measured)
    audit = _audit(chat, source, cfg)
    show_plan(
        SetPlan(
            title=f"{cfg.data.name or 'data'} as {model.name or 'the model'} sees it ({_format(chat)})",
            counts=Counter((example.source, example.label) for example in source.examples),
            rejected=source.rejected,
            tokens=_tokens(lengths),
            max_length=cfg.sft.max_length,
            cut=(len(lengths.cut), sum(example.whole - cfg.sft.max_length for example in lengths.cut)),
            empty_traces=sum(not example.trace.strip() for example in source.examples),
            repeated=num_shared([example.prompt for example in source.examples], source.part_sizes),
            measured=shared,
            unread=unread,
            audit=audit,
        )
    )
    there = planned_config(cfg, folder)
    memory = _memory(there, folder, lengths) if measures else None
    recompute_every = 0 if memory is None else memory.source.plan.recompute_every
    if (stages := time_plan(there, folder, lengths, recompute_every, unread if measures else None)) is not None:
        show_stages(stages)
    file = _file(cfg, place)
    show_examples(chat, source.examples[:NUM_FIRST], file)
    say(f"[dim]token by token, with their text: {escape(str(file))}[/]")
    try:
        lengths.check()
    except UserError as error:
        raise UserError(f"{error}\ntry: sft.max_length={lengths.fitting_length}") from error
    if failing := set().union(*audit.values()):
        raise UserError(
            f"model.chat_style={chat.style}: {len(failing)} examples do not come through this model's format as they should "
            "(see Format above). Write another model.chat_style, or leave those rows out."
        )
    say("[green]the set can be trained on as it is[/]")
    if memory is not None:
        memory.require()


def _memory(cfg: Config, folder: Path, lengths: SetLengths) -> PlannedMemory | None:
    """Shows the memory of the training on the machine that the config describes; says where it is not known."""
    memory = PlannedMemory.of(folder, cfg, lengths)
    if memory is None:
        say("[dim]memory: not planned; trainer.accelerator=cuda trainer.device_name=H100 stand for a GPU that is not here[/]")
    else:
        show_memory(memory_table(cfg, memory.bound, memory.source))
    return memory


def _file(cfg: Config, place: Place) -> Path:
    """Returns where the first rows go: beside the run directory, which would not be free for the run with a file in it."""
    folder = place.root / cfg.name if place.exact is None else place.exact.parent
    return folder / "plan" / f"{cfg.model.name or 'model'}_{cfg.data.name or 'data'}-{content_hash(asdict(cfg))[:8]}.txt"


def _format(chat: Chat) -> str:
    marks = f", {' … '.join(chat.marks)}" if chat.marks else ""
    return f"model.chat_style={chat.style}{marks}"


def _tokens(lengths: SetLengths) -> dict[str, list[int]]:
    return {part: [getattr(example, part) for example in lengths.examples] for part in ("prompt", "trace", "answer", "whole")}


def _audit(chat: Chat, source: Sources, cfg: Config) -> dict[str, list[str]]:
    """Returns demand → ids of the examples that do not fulfil it."""
    append_eos = cfg.sft.append_eos
    found: dict[str, list[str]] = {demand: [] for demand in demands(chat, append_eos=append_eos)}
    with progress("auditing the format", len(source.examples)) as advance:
        for example in source.examples:
            for demand in failed_demands(chat, example, append_eos=append_eos):
                found[demand].append(example.id)
            advance(1)
    return found
