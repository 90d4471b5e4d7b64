"""Refinement strategies: the prompts that the target model gets for each example, and the parts of its answers that are kept.

A strategy is one file of `strategies/` that holds its class under the name `STRATEGY`, with everything that is known of it: the
keys of `refine` that it reads, its templates, its steps, its rules. Nothing else is edited for a new one. A strategy from
outside the package is a subclass of `Strategy` too, chosen with `refine.strategy=package.module:Class`; options of its own are
a dataclass, `Options`, whose fields are given as `refine.options.<name>=`:

    class Shorter(Strategy):
        keys = (*SAMPLING, *QUALITY, *FALLBACK)

        @dataclass
        class Options:
            sentences: int = setting(3, "how long a trace may become", low=1)

        def steps(self) -> Sequence[Step]: ...
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from dgr_lightning.config import RefineConfig, schema
from dgr_lightning.errors import UserError
from dgr_lightning.prompts.templates import RewritingTemplate, TemplateFile
from dgr_lightning.refinement.meta_thinking import SHIPPED_PATTERNS
from dgr_lightning.refinement.quality import check_quality
from dgr_lightning.refinement.step import Step
from dgr_lightning.registry import Registry

if TYPE_CHECKING:
    from dgr_lightning.models.chat import Chat

# Keys of `refine` that strategies have in common.
SAMPLING = ("seed", "temperature", "top_p", "top_k", "max_new_tokens", "tries", "select", "thinking")
QUALITY = ("meta_thinking", "overthinking_tokens", "checks")
FALLBACK = ("on_failure", "fraction")


class Strategy:
    """A strategy under one config. Subclasses say what they read and ask; what they leave out is as below.

    Attributes:
        keys: the keys of `refine` that it reads, besides `name`, `strategy` and `options`; no other reaches it or its hashes.
        templates: the template files of its steps.
        generates: whether the target model writes anything.
        judges_source: whether quality control judges the source texts in place of rewrites.
        pairs_by_length: whether rewrites and originals are paired by length, and `refine.arm` chooses the side that is kept.
        uses_guard: whether the configured judge (`judge=`) takes part, which otherwise serves evaluation alone.
        needs_thinking: whether every example's trace is what the model thinks, so that a model without thinking has none.
        Options: a dataclass of the strategy's own options, with fields from `config.setting`; None: it has none.
        refine: the config; keys that it does not read have their default value.
        options: an instance of `Options`; None where there is none.
    """

    keys: ClassVar[tuple[str, ...]] = ()
    templates: ClassVar[tuple[TemplateFile, ...]] = ()
    generates: ClassVar[bool] = True
    judges_source: ClassVar[bool] = False
    pairs_by_length: ClassVar[bool] = False
    uses_guard: ClassVar[bool] = False
    needs_thinking: ClassVar[bool] = False
    Options: ClassVar[type[Any] | None] = None

    def __init__(self, refine: RefineConfig) -> None:
        """Takes what the strategy reads of `refine`.

        Raises:
            UserError: an option that the strategy does not have, or of the wrong type or out of range.
        """
        read = {key: getattr(refine, key) for key in self.keys}
        self.refine = RefineConfig(name=refine.name, strategy=refine.strategy, options=refine.options, **read)
        self.options: Any = self._parsed(refine.options)

    def steps(self) -> Sequence[Step]:
        """Returns the steps, in order; none where nothing is generated.

        Raises:
            UserError: a template cannot be used.
        """
        return []

    def check(self) -> None:
        """Checks what the schema cannot: keys that contradict each other, and the files of templates and patterns.

        Raises:
            UserError: naming the override and what may stand there.
        """
        check_quality(self.refine)
        if self.refine.select == "nll" and self.refine.tries == 1:
            raise UserError("refine.select=nll with refine.tries=1: there is nothing to choose from; give refine.tries=4, say.")
        self.steps()

    def load(self, template: TemplateFile) -> RewritingTemplate:
        """Returns a template's text: the user's file, or the shipped one.

        Raises:
            UserError: it cannot be used.
        """
        return template.load(getattr(self.refine, template.key))

    @property
    def shipped_texts(self) -> Mapping[str, Path]:
        """The keys that it reads and that name a text file, with the file that null stands for."""
        texts = {template.key: template.shipped for template in self.templates}
        return texts | ({"meta_thinking": SHIPPED_PATTERNS} if "meta_thinking" in self.keys else {})

    @property
    def identity(self) -> dict[str, Any]:
        """The part of the run hash and the generation hash beyond `refine`'s common keys.

        `options`, where it has any, and for a strategy from outside `code`: the SHA-256 of the file that defines it. The code
        of the package's own strategies is covered by version numbers instead.
        """
        options = {} if self.options is None else {"options": asdict(self.options)}
        return options | STRATEGIES.outside_code(self.refine.strategy)

    def _parsed(self, given: Mapping[str, Any]) -> Any:
        name = self.refine.strategy
        if self.Options is None:
            if given:
                raise UserError(f"refine.options.{next(iter(given))}: refine.strategy={name} has no options; leave it out.")
            return None
        known = {field.name: field.default is MISSING and field.default_factory is MISSING for field in fields(self.Options)}
        for option in given:
            if option not in known:
                near = difflib.get_close_matches(option, known, n=1)
                hinted = f" Did you mean {near[0]}?" if near else ""
                raise UserError(
                    f"refine.options.{option}: refine.strategy={name} has no such option.{hinted} It has: {', '.join(known)}."
                )
        for option, is_required in known.items():
            if is_required and option not in given:
                raise UserError(f"refine.options.{option}: refine.strategy={name} needs it; write refine.options.{option}=….")
        return schema.section(self.Options, dict(given), "refine.options.", {})


STRATEGIES: Registry[type[Strategy]] = Registry("refine.strategy", "dgr_lightning.refinement.strategies", "STRATEGY")


def strategy_of(refine: RefineConfig) -> Strategy:
    """Returns the strategy that a config chooses.

    Raises:
        UserError: there is none of that name, or an option cannot be used.
    """
    chosen = STRATEGIES.get(refine.strategy)
    if not (isinstance(chosen, type) and issubclass(chosen, Strategy)):
        raise UserError(f"refine.strategy={refine.strategy}: not a subclass of dgr_lightning.refinement.strategy.Strategy.")
    return chosen(refine)


def read_by_strategy(refine: RefineConfig) -> RefineConfig:
    """Returns a config in which every key that the strategy does not read has its default value."""
    return strategy_of(refine).refine


def check_thinking(refine: RefineConfig, chat: Chat) -> None:
    """Raises a UserError where a strategy needs thinking and the model's style has none."""
    if strategy_of(refine).needs_thinking and not chat.thinks:
        raise UserError(
            f"model.chat_style=none with refine.strategy={refine.strategy}: the trace would be what the model thinks. Write "
            "refine=dgr, refine=sdft or refine=vanilla on rows without a trace, or the model.chat_style that marks thinking."
        )


def require_thinking(refine: RefineConfig) -> None:
    """Raises a UserError where a strategy that keeps the model's thinking as the trace would have none."""
    if not refine.thinking:
        raise UserError(
            f"refine.thinking=false: with {refine.strategy} the trace is what the model thinks; write refine.thinking=true."
        )
