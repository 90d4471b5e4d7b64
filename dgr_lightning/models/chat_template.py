"""The chat template of a tokenizer: which text of the folder's files it is, and prompts rendered by it, within limits.

A template is a program in somebody else's folder, and is rendered as one that may never end (`prompts/rendering.py`). What it
gives is what transformers' `apply_chat_template` gives, because the same code renders it with the same variables.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dgr_lightning.errors import UserError
from dgr_lightning.prompts.rendering import RenderingFailure, render_chat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Arguments of `apply_chat_template` that reach the template, or choose it.
_REACHING = ("tools", "documents", "chat_template")


class ChatTemplate:
    """A tokenizer's chat template with what is given to it besides the user's message.

    A tokenizer whose class renders conversations itself is custom code, which the user has allowed to run
    (`model.trust_remote_code`); it runs here, without limits, as the rest of that code does.

    Attributes:
        text: the template's source; that of a class of its own is a guess.
        args: its arguments, `model.template_args`.
        system_prompt: the system message before every prompt; None: what the template writes by itself.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, system_prompt: str | None = None, args: Mapping[str, Any] | None = None
    ) -> None:
        """Takes what `Chat` does.

        Raises:
            UserError: there is no template, several without a choice, or one that is no text; or an argument is not one of
                a template.
        """
        from transformers import PreTrainedTokenizerBase

        self._tokenizer, self._name = tokenizer, tokenizer.name_or_path or "the tokenizer"
        self.system_prompt, self.args = system_prompt, dict(args or {})
        self._own_code = type(tokenizer).apply_chat_template is not PreTrainedTokenizerBase.apply_chat_template
        known = inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters
        for name in self.args:
            if name in known and name not in _REACHING:
                raise UserError(
                    f"model.template_args.{name}: an argument of transformers, which this project sets, and not of a chat "
                    "template; leave it out."
                )
        self.text = self._chosen()

    def render(self, prompt: str) -> str:
        """Returns a conversation of the user's message alone as the template writes it, up to where the model continues.

        Raises:
            UserError: the template refuses it, fails on it, or exceeds a limit; the message names the folder.
        """
        system = [] if self.system_prompt is None else [{"role": "system", "content": self.system_prompt}]
        return self.render_messages([*system, {"role": "user", "content": prompt}])

    def render_messages(self, messages: Sequence[dict[str, str]]) -> str:
        """Returns a conversation as the template writes it, up to where the model continues.

        Args:
            messages: each with `role` and `content`.

        Raises:
            UserError: as for `render`.
        """
        if self._own_code:
            text = self._tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False, **self.args)
            assert isinstance(text, str)
            return text
        variables = self.args | {}
        variables.pop("chat_template", None)
        try:
            return render_chat(self.text, messages, {**self._tokenizer.special_tokens_map, **variables})
        except RenderingFailure as failure:
            remedies = ["put a chat_template.jinja of your own into the folder"]
            if messages[0]["role"] == "system":  # a template says so itself where it does not take a role
                remedies.insert(0, "write model.system_prompt=null")
            raise UserError(
                f"{self._name}: its chat template {failure}, for a prompt of {len(messages[-1]['content']):,} characters; "
                f"{', or '.join(remedies)}."
            ) from failure

    def ids(self, prompt: str) -> list[int]:
        """Returns the tokens of `render`, as `apply_chat_template` would return them.

        Raises:
            UserError: as for `render`.
        """
        ids = self._tokenizer(self.render(prompt), add_special_tokens=False)["input_ids"]
        assert isinstance(ids, list)
        return ids

    def _chosen(self) -> str:
        """Returns the template's source: of several, the one that `model.template_args.chat_template` or `default` names."""
        given: Any = self._tokenizer.chat_template
        if not given:
            raise UserError(
                f"{self._name} has no chat template. Name a chat model's folder, or put its chat_template.jinja there."
            )
        if self._own_code:
            return str(given)
        asked = self.args.get("chat_template")
        if isinstance(given, dict) and asked is None and "default" not in given:
            names = ", ".join(map(str, given))
            raise UserError(
                f"{self._name} has several chat templates ({names}), none of which is the default. Write "
                "model.template_args.chat_template=<one of them>."
            )
        # As apply_chat_template does, which hands tools to the template that is for them.
        text: Any = self._tokenizer.get_chat_template(asked, self.args.get("tools"))
        if not isinstance(text, str):
            raise UserError(
                f"{self._name}: its chat template is no text but {type(text).__name__}. Put its chat_template.jinja into the "
                "folder."
            )
        return text
