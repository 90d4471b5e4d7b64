"""Keys of `model`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from dgr_lightning.config.setting import EVERY_KIND, NEVER, setting


@dataclass
class ModelConfig:
    """The target model: the one that rewrites the safety set and is then trained on it."""

    name: str = setting("", "short name, part of a run's directory name", private=False, hashed=NEVER)
    hub_id: Optional[str] = setting(None, "id on the Hugging Face hub", private=False, hashed=NEVER)
    revision: Optional[str] = setting(None, "pinned commit of hub_id", private=False, hashed=NEVER)
    path: Optional[str] = setting(None, "local Hugging Face folder to use instead of hub_id", private=True, hashed=NEVER)
    base: Optional[str] = setting(
        None,
        "base of the adapter that path names, a folder or an id on the hub; null: what its adapter_config.json says",
        private=True,
        hashed=NEVER,
    )
    recipe: Optional[str] = setting(
        None, "name of a model that the project grows from nothing", choices=("micro",), hashed=NEVER
    )
    seed: int = setting(
        0,
        "seed of the recipe's pretraining; the model of seed 0 comes with the package, others are grown once",
        low=0,
        hashed=NEVER,
    )
    grow: bool = setting(False, "grow the model of seed 0 on this machine as well", hashed=NEVER)
    language: str = setting(
        "natural", "language of its prompts; data and tasks must speak it", choices=("natural", "micro"), hashed=NEVER
    )
    chat_style: str = setting(
        "auto",
        "how it marks thinking; auto goes by the record of an exported model, its vocabulary and its template",
        choices=("auto", "think", "think-text", "s1", "none", "marks"),
        hashed=EVERY_KIND,
    )
    think_marks: Optional[list[str]] = setting(
        None, "opening and closing mark of chat_style=marks", private=False, hashed=EVERY_KIND, added=True
    )
    system_prompt: Optional[str] = setting(
        None,
        "system message before every prompt, in training and in generation; null: an exported model's, else the template's",
        private=True,
        hashed=EVERY_KIND,
        added=True,
    )
    template_args: dict[str, Any] = setting(
        {}, "arguments of the chat template, such as {enable_thinking: true}", private=True, hashed=EVERY_KIND, added=True
    )
    trust_remote_code: bool = setting(
        False, "run code shipped in the model's repository (off: a model that needs it is refused)", hashed=NEVER
    )
