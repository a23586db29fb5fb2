"""Chat templates: a conversation -> the text that the checkpoint's own jinja template makes of it.

The sandbox, its options and its extra names are those that chat templates on the hub are written against
(`trim_blocks`, `lstrip_blocks`, loop controls, `raise_exception`, `strftime_now`, a plain `tojson`, the
`generation` tag). A template comes from a downloaded file: it runs only inside jinja's immutable sandbox.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from interp.errors import CheckpointError, InputError

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["render_template"]


def render_template(
    template: str,
    messages: Sequence[Mapping[str, str]],
    *,
    add_generation_prompt: bool,
    special_tokens: Mapping[str, str],
) -> str:
    """The conversation as the template writes it; `special_tokens` holds `bos_token`, `eos_token`, … as text.

    Raises `InputError` for messages that are not `{"role": str, "content": str}` or that the template refuses,
    and `CheckpointError` for a template that is not valid jinja.
    """
    chat = [_checked(message, index) for index, message in enumerate(_as_list(messages))]
    compiled = _compile(template)
    try:
        return compiled.render(
            messages=chat,
            tools=None,
            documents=None,
            add_generation_prompt=add_generation_prompt,
            **special_tokens,
        )
    except Exception as error:  # foreign code: whatever it raises is its verdict on these messages
        roles = ", ".join(message["role"] for message in chat)
        raise InputError(
            f"The checkpoint's chat template refused this conversation (roles: {roles}): {error}. "
            "Order the roles as this model expects them, or build the text yourself and use encode()."
        ) from error


def _as_list(messages: Any) -> list[Any]:
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence):
        raise InputError(
            f"A conversation is a list of messages, got {type(messages).__name__}. "
            'Write [{"role": "user", "content": "…"}].'
        )
    if not messages:
        raise InputError('The conversation is empty. Give at least one message: [{"role": "user", "content": "…"}].')
    return list(messages)


def _checked(message: Any, index: int) -> dict[str, str]:
    if not isinstance(message, Mapping):
        raise InputError(f"Message {index} is {message!r}, not a mapping. Write {{'role': 'user', 'content': '…'}}.")
    for key in ("role", "content"):
        if not isinstance(message.get(key), str):
            raise InputError(
                f"Message {index} has {key} {message.get(key)!r}; it must be text. "
                "Write {'role': 'user', 'content': '…'}."
            )
    return {key: value for key, value in message.items() if value is not None}


@lru_cache(maxsize=64)
def _compile(template: str) -> Template:
    from jinja2 import TemplateError, ext
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_generation_tag(), ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    try:
        return environment.from_string(template)
    except TemplateError as error:
        raise CheckpointError(f"The checkpoint's chat template is not valid jinja: {error}.") from error


@lru_cache(maxsize=1)
def _generation_tag() -> type:
    """`{% generation %}…{% endgeneration %}` marks the assistant's text for training; here it only renders it."""
    from jinja2 import nodes
    from jinja2.ext import Extension

    class GenerationTag(Extension):
        tags: ClassVar[set[str]] = {"generation"}

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_render"), [], [], body).set_lineno(line)

        def _render(self, caller: Any) -> str:
            return caller()

    return GenerationTag


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # jinja's own filter escapes HTML characters, which no chat model was trained on
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    from jinja2 import TemplateError

    raise TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)
