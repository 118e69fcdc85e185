"""Render dialogues for a causal model with its tokenizer's chat template, or with DEFAULT.

DEFAULT writes one line per turn (`System: ...`, `User: ...`, `Assistant: ...`) and the
end-of-text token after each assistant turn, so a base model without a template needs no new token.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tasks.core.errors import DataError, SourceError
from tasks.encoding.dialogues import Turn
from tasks.encoding.token_files import Files, files_of
from tasks.encoding.words import special_tokens

if TYPE_CHECKING:
    from jinja2 import Template
    from tokenizers import Tokenizer

DEFAULT = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ message.role | capitalize }}: {{ message.content }}"
    "{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)


@dataclass(frozen=True)
class ChatTemplate:
    """A compiled chat template and the special tokens that it may reference."""

    template: Template
    tokens: Mapping[str, str]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> ChatTemplate:
        """The template from the tokenizer's own directory, else DEFAULT.

        Raises SourceError if there is no template and no end-of-text token for DEFAULT to use.
        """
        source, tokens = _read(files_of(tokenizer))
        if source is not None:
            return cls(_compile(source), tokens)
        if "eos_token" not in tokens:
            raise SourceError(
                "base_model: its tokenizer has neither a chat template nor an end-of-text token "
                "(eos_token).",
                "Use a causal language model (SmolLM2, GPT-2, ...), or add one of the two to its "
                "tokenizer_config.json.",
            )
        prefix = "".join(
            tokenizer.id_to_token(token) or "" for token in special_tokens(tokenizer)[0]
        )
        return cls(_compile(DEFAULT), {**tokens, "bos_token": prefix})

    def render(self, turns: Sequence[Turn], *, add_generation_prompt: bool) -> str:
        """The text of a dialogue. Raises DataError if the template rejects it.

        add_generation_prompt  append the opening of the assistant's next turn
        """
        from jinja2 import TemplateError

        try:
            return self.template.render(
                messages=turns,
                add_generation_prompt=add_generation_prompt,
                tools=None,
                **self.tokens,
            )
        except TemplateError as error:
            roles = ", ".join(turn["role"] for turn in turns)
            raise DataError(
                f"base_model: its chat template rejects a dialogue with roles {roles}: {error}",
                "Exclude such dialogues with `ingest.query`, or use another base model.",
            ) from None


def _read(files: Files) -> tuple[str | None, dict[str, str]]:
    """(chat template, special tokens by name) from the files of a Hugging Face directory."""
    config = json.loads(files("tokenizer_config.json") or b"{}")
    tokens = {
        name: value["content"] if isinstance(value, dict) else value
        for name, value in config.items()
        if name.endswith("_token") and isinstance(value, (str, dict))
    }
    file = files("chat_template.jinja")
    source = config.get("chat_template") if file is None else file.decode()
    if isinstance(source, list):  # several named templates
        source = next((entry["template"] for entry in source if entry["name"] == "default"), None)
    return source, tokens


@lru_cache(8)
def _compile(source: str) -> Template:
    """Compile as Hugging Face does: sandboxed, because a template is code shipped with a model."""
    from jinja2 import TemplateSyntaxError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.globals |= {"raise_exception": _refuse, "strftime_now": _no_date}
    # `generation` marks answers and renders nothing; we locate answers without it
    plain = source.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    plain = plain.replace("{%- generation -%}", "").replace("{%- endgeneration -%}", "")
    try:
        return environment.from_string(plain)
    except TemplateSyntaxError as error:
        raise SourceError(
            f"base_model: its chat template cannot be parsed: {error}", "Use another base model."
        ) from None


def _refuse(message: str) -> Any:
    from jinja2 import TemplateError

    raise TemplateError(message)


def _no_date(layout: str) -> str:
    """A fixed date, so that the same data always gives the same tokens."""
    from datetime import date

    return date(2026, 1, 1).strftime(layout)
