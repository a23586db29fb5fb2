"""Tokenizers from a folder in hub layout (`tokenizer.json` and its companions) or from a live object."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.errors import CheckpointError, InputError
from interp.text.tokenizer import Tokenizer, frame_of, parse_backend
from interp.text.wordpiece import WORDPIECE_ROLES, is_wordpiece, wordpiece_backend

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

__all__ = ["tokenizer_from_folder", "tokenizer_from_live"]

_ROLES = ("bos", "eos", "unk", "pad", "mask")
_OTHER_SPECIAL = ("sep_token", "cls_token")
_SPECIAL_LISTS = ("additional_special_tokens", "extra_special_tokens")


def tokenizer_from_folder(path: str | Path) -> Tokenizer:
    """The tokenizer of a local folder in hub layout.

    `add_bos_token` and `add_eos_token` of `tokenizer_config.json` decide about BOS and EOS; where they are absent,
    the post-processor of `tokenizer.json` does. (transformers 4 reads them alike; 5 only asks the post-processor.)
    Older BERT checkpoints have a `vocab.txt` alone, which is read as transformers does. Raises `CheckpointError` if
    there is neither.
    """
    folder = Path(path)
    file = folder / "tokenizer.json"
    config = _json(folder / "special_tokens_map.json") | _json(folder / "tokenizer_config.json")
    vocabulary = folder / "vocab.txt"
    if file.is_file():
        backend = parse_backend(file)
    elif is_wordpiece(vocabulary):
        backend = wordpiece_backend(vocabulary, config)
        config = {**WORDPIECE_ROLES, **config}
    else:
        raise CheckpointError(
            f"{folder} has no tokenizer.json. Write one with "
            f"transformers: AutoTokenizer.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})."
        )
    _add_configured_tokens(backend, config)
    ids = {f"{role}_id": _role_id(backend, config, folder, role) for role in _ROLES}
    return _build(backend, ids, config, _chat_template(folder, config))


def tokenizer_from_live(tokenizer: Any) -> Tokenizer:
    """A copy of a live fast tokenizer of the transformers library; the object itself is only read.

    Raises `InputError` for an object without a `backend_tokenizer`.
    """
    from tokenizers import Tokenizer as Backend

    source = getattr(tokenizer, "backend_tokenizer", None)
    if source is None or not hasattr(source, "to_str"):
        raise InputError(
            f"{type(tokenizer).__name__} has no backend_tokenizer, so it cannot be read. "
            "Pass a fast tokenizer, e.g. AutoTokenizer.from_pretrained(…)."
        )
    backend = Backend.from_str(source.to_str())
    ids = {f"{role}_id": getattr(tokenizer, f"{role}_token_id", None) for role in _ROLES}
    # The live post-processor already says what its add_bos_token does; the flag itself is not always kept in step.
    return _build(backend, ids, {}, _default_template(getattr(tokenizer, "chat_template", None)))


def _build(
    backend: Backend, ids: dict[str, int | None], config: Mapping[str, Any], chat_template: str | None
) -> Tokenizer:
    before, after = frame_of(backend)

    def added(role: str, framed: list[int]) -> bool:
        token_id, said = ids[f"{role}_id"], config.get(f"add_{role}_token")
        return token_id is not None and (token_id in framed if said is None else bool(said))

    return Tokenizer(
        backend, chat_template=chat_template, add_bos=added("bos", before), add_eos=added("eos", after), **ids
    )


def _add_configured_tokens(backend: Backend, config: Mapping[str, Any]) -> None:
    """Tokens that the configuration declares and `tokenizer.json` does not have as whole tokens yet."""
    from tokenizers import AddedToken

    decoder = config.get("added_tokens_decoder") or {}
    declared = [entry for _, entry in sorted(decoder.items(), key=lambda item: int(item[0]))]
    special = [config.get(f"{role}_token") for role in _ROLES] + [config.get(name) for name in _OTHER_SPECIAL]
    for name in _SPECIAL_LISTS:
        extra = config.get(name) or []
        special += list(extra.values()) if isinstance(extra, Mapping) else list(extra)
    special_names = {_content(entry) for entry in special}
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    for entry in [*declared, *special]:
        name = _content(entry)
        if not name or name in known:
            continue
        known.add(name)
        options = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        if isinstance(entry, Mapping):
            options |= {key: bool(entry[key]) for key in options if key in entry}
        is_special = name in special_names or (isinstance(entry, Mapping) and bool(entry.get("special")))
        token = AddedToken(name, special=is_special, **options)
        backend.add_special_tokens([token]) if is_special else backend.add_tokens([token])


def _role_id(backend: Backend, config: Mapping[str, Any], folder: Path, role: str) -> int | None:
    """A role's id by name; where no file names it, the id in `config.json` or `generation_config.json`."""
    if f"{role}_token" in config:
        name = _content(config[f"{role}_token"])
        return None if name is None else backend.token_to_id(name)
    for file in ("config.json", "generation_config.json"):
        value = _json(folder / file).get(f"{role}_token_id")
        value = value[0] if isinstance(value, list) and value else value
        if isinstance(value, int) and value >= 0 and backend.id_to_token(value) is not None:
            return value
    return None


def _content(entry: Any) -> str | None:
    return entry.get("content") if isinstance(entry, Mapping) else entry


def _chat_template(folder: Path, config: Mapping[str, Any]) -> str | None:
    for name in ("chat_template.jinja", "chat_template.json"):
        file = folder / name
        if file.is_file() and name.endswith(".jinja"):
            return file.read_text(encoding="utf-8")
        if file.is_file():
            return _default_template(_json(file).get("chat_template"))
    return _default_template(config.get("chat_template"))


def _default_template(value: Any) -> str | None:
    """One template: the text itself, or the one named "default" of several."""
    if isinstance(value, list):
        value = {entry["name"]: entry["template"] for entry in value}
    if isinstance(value, Mapping):
        value = value.get("default")
    return value if isinstance(value, str) else None


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}. Download or save it again.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds {type(value).__name__}, not an object. Download or save it again.")
    return value
