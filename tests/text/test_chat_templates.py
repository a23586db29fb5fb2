"""Chat templates render as the transformers library renders them, and refuse what is no conversation."""

from __future__ import annotations

from typing import Any

import pytest

from interp.errors import CheckpointError, InputError
from interp.text import Tokenizer

USER = {"role": "user", "content": "What is the capital of France?"}
SYSTEM = {"role": "system", "content": "You are terse."}
ANSWER = {"role": "assistant", "content": "Paris."}
CONVERSATIONS = [
    [USER],
    [SYSTEM, USER],
    [USER, ANSWER],
    [SYSTEM, USER, ANSWER, {"role": "user", "content": "And of Spain?\n\n  Think."}],
    [{"role": "user", "content": ""}],
    [{"role": "user", "content": "  <b>'quoted' & \"odd\"</b> {{ 1 + 1 }} {% if %} <|im_end|> 👩‍👩‍👧 \t\n"}],
    [{"role": "tool", "content": "x"}, {"role": "user", "content": "你好"}],
    [{"role": "user", "content": "extra key", "name": "Ada"}],
]
TEMPLATES = {
    "llama-like": (
        "{{ bos_token }}{% for m in messages %}\n"
        "    {% if m['role'] == 'user' %}\n[INST] {{ m['content'] | trim }} [/INST]{% else %}"
        "{{ m['content'] }}{{ eos_token }}{% endif %}\n{% endfor %}\n"
    ),
    "json and loop controls": (
        "{%- for m in messages %}{% if m.role == 'tool' %}{% continue %}{% endif %}{{ m | tojson }}"
        "{% if loop.index > 2 %}{% break %}{% endif %}{{ m | tojson(indent=2) }}{% endfor %}"
    ),
    "generation tag": (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<end>{% endgeneration %}"
        "{% else %}{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}>{% endif %}"
    ),
    "names": (
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}"
        "{{ strftime_now('%Y') }}{{ pad_token }}{{ unk_token }}{{ cls_token is defined }}{{ tools is none }}"
        "{{ documents is none }}{% if not add_generation_prompt is defined %}?{% endif %}{{ messages[0].get('name') }}"
    ),
}


def _with_template(tokenizer: Tokenizer, template: str | None) -> Tokenizer:
    return Tokenizer(
        tokenizer.backend,
        add_bos=tokenizer.add_bos,
        bos_id=tokenizer.bos_id,
        eos_id=tokenizer.eos_id,
        pad_id=tokenizer.pad_id,
        unk_id=tokenizer.unk_id,
        chat_template=template,
    )


@pytest.mark.parametrize("messages", CONVERSATIONS)
@pytest.mark.parametrize("prompt", [True, False])
def test_smollm_chats_render_and_encode_alike(
    smollm: Tokenizer, hf_smollm: Any, messages: list[dict[str, str]], prompt: bool
) -> None:
    rendered = smollm.render_chat(messages, add_generation_prompt=prompt)
    assert rendered == hf_smollm.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
    ids = hf_smollm.apply_chat_template(messages, tokenize=True, add_generation_prompt=prompt, return_dict=False)
    assert smollm.encode_chat(messages, add_generation_prompt=prompt) == ids


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("messages", CONVERSATIONS)
@pytest.mark.parametrize("prompt", [True, False])
def test_other_templates_render_alike(
    smollm: Tokenizer, hf_smollm: Any, name: str, messages: list[dict[str, str]], prompt: bool
) -> None:
    ours = _with_template(smollm, TEMPLATES[name]).render_chat(messages, add_generation_prompt=prompt)
    assert ours == hf_smollm.apply_chat_template(
        messages, chat_template=TEMPLATES[name], tokenize=False, add_generation_prompt=prompt
    )


def test_a_rendered_chat_gets_no_second_bos(smollm: Tokenizer) -> None:
    template = "{{ bos_token }}{{ messages[0].content }}"
    adding = Tokenizer(smollm.backend, add_bos=True, bos_id=1, eos_id=2, pad_id=2, chat_template=template)
    assert adding.encode_chat([USER]).count(1) == 1
    assert adding.encode(adding.render_chat([USER])) == adding.encode_chat([USER])
    silent = _with_template(smollm, "{{ messages[0].content }}")
    assert 1 not in silent.encode_chat([USER])


@pytest.mark.usefixtures("unchecked")
def test_messages_are_left_as_they_were(smollm: Tokenizer) -> None:
    message = {"role": "user", "content": "x", "name": None}
    smollm.render_chat([message])  # type: ignore[list-item]
    assert message == {"role": "user", "content": "x", "name": None}


def test_a_checkpoint_without_a_template_says_so(smollm: Tokenizer) -> None:
    with pytest.raises(InputError, match="has no chat template"):
        _with_template(smollm, None).render_chat([USER])


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        ([], "conversation is empty"),
        ("hello", "list of messages, got str"),
        ({"role": "user", "content": "x"}, "list of messages, got dict"),
        (None, "list of messages, got NoneType"),
        (["hello"], "Message 0 is 'hello', not a mapping"),
        ([USER, {"role": "user"}], "Message 1 has content None"),
        ([{"content": "x"}], "Message 0 has role None"),
        ([{"role": "user", "content": 3}], "Message 0 has content 3"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_is_no_conversation_is_refused(smollm: Tokenizer, messages: Any, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        smollm.render_chat(messages)


def test_what_the_template_refuses_is_told(smollm: Tokenizer) -> None:
    strict = _with_template(smollm, "{{ raise_exception('roles must alternate') }}")
    with pytest.raises(InputError, match=r"refused this conversation \(roles: system, user\): roles must alternate"):
        strict.render_chat([SYSTEM, USER])


def test_a_template_that_fails_by_itself_is_told(smollm: Tokenizer) -> None:
    with pytest.raises(InputError, match="refused this conversation"):
        _with_template(smollm, "{{ messages[0].absent.more }}").render_chat([USER])
    with pytest.raises(CheckpointError, match="not valid jinja"):
        _with_template(smollm, "{% for %}").render_chat([USER])


@pytest.mark.parametrize("attack", ["{{ messages.__class__.__mro__ }}", "{{ messages.append(1) }}"])
def test_a_template_cannot_leave_its_sandbox(smollm: Tokenizer, attack: str) -> None:
    with pytest.raises(InputError, match="refused"):
        _with_template(smollm, attack).render_chat([USER])
