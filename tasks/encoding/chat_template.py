"""A dialogue as the text that a causal model reads: by the chat template of its tokenizer, or by DEFAULT where it has none.

DEFAULT writes a line a turn, `System: ...`, `User: ...`, `Assistant: ...`; the token that ends texts ends the assistant's. So a
base model without a template needs no token that it has not.
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
    "{{ bos_token }}{% for message in messages %}{{ message.role | capitalize }}: {{ message.content }}"
    "{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)


@dataclass(frozen=True)
class ChatTemplate:
    """A compiled template and the special tokens that it may name."""

    template: Template
    tokens: Mapping[str, str]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> ChatTemplate:
        """That beside the tokenizer where it was loaded from. Raises SourceError where texts have no end that it could use."""
        own, tokens = _read(files_of(tokenizer))
        if own is not None:
            return cls(_compile(own), tokens)
        if "eos_token" not in tokens:
            raise SourceError(
                "base_model: its tokenizer has neither a chat template nor a token that ends texts (eos_token).",
                "Take a causal language model (SmolLM2, GPT-2, ...), or give its tokenizer_config.json one.",
            )
        before = "".join(
            tokenizer.id_to_token(token) or "" for token in special_tokens(tokenizer)[0]
        )
        return cls(_compile(DEFAULT), {**tokens, "bos_token": before})

    def render(self, turns: Sequence[Turn], *, ask: bool) -> str:
        """The text of a dialogue; with `ask` the beginning of the assistant's next turn too. Raises DataError where it has no such text."""
        from jinja2 import TemplateError

        try:
            return self.template.render(
                messages=turns, add_generation_prompt=ask, tools=None, **self.tokens
            )
        except TemplateError as error:
            roles = ", ".join(turn["role"] for turn in turns)
            raise DataError(
                f"base_model: its chat template refuses a dialogue of the roles {roles}: {error}",
                "Leave such dialogues out with `ingest.query`, or take another base model.",
            ) from None


def _read(files: Files) -> tuple[str | None, dict[str, str]]:
    """(chat template, special tokens by name) of a Hugging Face directory."""
    config = json.loads(files("tokenizer_config.json") or b"{}")
    tokens = {
        name: value["content"] if isinstance(value, dict) else value
        for name, value in config.items()
        if name.endswith("_token") and isinstance(value, (str, dict))
    }
    file = files("chat_template.jinja")
    own = config.get("chat_template") if file is None else file.decode()
    if isinstance(own, list):  # several, by name
        own = next((one["template"] for one in own if one["name"] == "default"), None)
    return own, tokens


@lru_cache(8)
def _compile(template: str) -> Template:
    """As Hugging Face compiles them: sandboxed, for a template is code that came with a model."""
    from jinja2 import TemplateSyntaxError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.globals |= {"raise_exception": _refuse, "strftime_now": _no_date}
    # `generation` marks answers and writes nothing: what is an answer is found without it
    plain = template.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    plain = plain.replace("{%- generation -%}", "").replace("{%- endgeneration -%}", "")
    try:
        return environment.from_string(plain)
    except TemplateSyntaxError as error:
        raise SourceError(
            f"base_model: its chat template cannot be read: {error}", "Take another base model."
        ) from None


def _refuse(message: str) -> Any:
    from jinja2 import TemplateError

    raise TemplateError(message)


def _no_date(layout: str) -> str:
    """A day that is always the same, for the same data give the same tokens."""
    from datetime import date

    return date(2026, 1, 1).strftime(layout)
