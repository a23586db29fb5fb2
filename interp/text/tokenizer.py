"""A checkpoint's tokenizer: text <-> token ids, single tokens, chats.

`Tokenizer` wraps a `tokenizers.Tokenizer` (the Rust library) and nothing else, so no deep-learning library is
imported. It holds no mutable state after construction: threads may share one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

from interp.errors import CheckpointError, InputError
from interp.files import read_json, write_json, write_text
from interp.text.chat import render_template

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

__all__ = ["Tokenizer", "frame_of", "parse_backend"]

_MODEL_FILE = "tokenizer.json"
_META_FILE = "tokenizer_meta.json"
_META_VERSION = 1


class Tokenizer:
    """Text <-> token ids as one checkpoint does it.

    `add_bos` and `add_eos` are what the checkpoint's metadata says about plain text. Other tokens that the
    backend's post-processor puts around a text (BERT's `[CLS]` and `[SEP]`) stay. The backend belongs to this
    object from here on; its truncation and padding are switched off.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        add_bos: bool,
        bos_id: int | None,
        eos_id: int | None,
        pad_id: int | None,
        unk_id: int | None = None,
        chat_template: str | None = None,
        add_eos: bool = False,
        mask_id: int | None = None,
    ) -> None:
        roles = {"bos_id": bos_id, "eos_id": eos_id, "pad_id": pad_id, "unk_id": unk_id, "mask_id": mask_id}
        for name, token_id in roles.items():
            if token_id is not None and backend.id_to_token(token_id) is None:
                raise CheckpointError(f"{name} is {token_id}, but the vocabulary has no such token.")
        if (add_bos and bos_id is None) or (add_eos and eos_id is None):
            raise CheckpointError("The metadata asks for a BOS or EOS token in every text but names none.")
        backend.no_truncation()
        backend.no_padding()
        self.backend = backend
        self.add_bos, self.add_eos = bool(add_bos), bool(add_eos)
        self.bos_id, self.eos_id, self.pad_id, self.unk_id, self.mask_id = bos_id, eos_id, pad_id, unk_id, mask_id
        self.chat_template = chat_template
        before, after = frame_of(backend)
        self._before = [token for token in before if token != bos_id]
        self._after = _with_eos(after, eos_id, self.add_eos)

    def __repr__(self) -> str:
        return (
            f"Tokenizer({self.n_vocab} tokens, add_bos={self.add_bos}, bos={self.bos_token!r}, eos={self.eos_token!r})"
        )

    @property
    def n_vocab(self) -> int:
        """How many tokens there are, added ones included."""
        return self.backend.get_vocab_size(with_added_tokens=True)

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of the tokens that stand for no text: BOS, EOS, chat marks and the like."""
        added = self.backend.get_added_tokens_decoder()
        return frozenset(token_id for token_id, token in added.items() if token.special)

    @property
    def bos_token(self) -> str | None:
        return self._name(self.bos_id)

    @property
    def eos_token(self) -> str | None:
        return self._name(self.eos_id)

    @property
    def pad_token(self) -> str | None:
        return self._name(self.pad_id)

    @property
    def unk_token(self) -> str | None:
        return self._name(self.unk_id)

    @property
    def mask_token(self) -> str | None:
        return self._name(self.mask_id)

    def encode(self, text: str, *, prepend_bos: bool | None = None) -> list[int]:
        """Token ids of `text`, with BOS in front if `prepend_bos`, or if it is None and the metadata says so.

        BOS is never put twice: a text that begins with it keeps the one it has.
        """
        return self._framed(self._encode_bare(text), prepend_bos)

    def encode_batch(self, texts: Sequence[str], *, prepend_bos: bool | None = None) -> list[list[int]]:
        """`encode` of each text, in parallel; rows have their own lengths."""
        if isinstance(texts, (str, bytes)):
            raise InputError(f"encode_batch takes a list of texts, got {texts!r}. Use encode for one text.")
        rows = [_checked_text(text) for text in texts]
        encodings = self.backend.encode_batch_fast(rows, add_special_tokens=False)
        return [self._framed(encoding.ids, prepend_bos) for encoding in encodings]

    def decode(self, ids: Iterable[SupportsIndex], *, skip_special_tokens: bool = False) -> str:
        """The text of a row of token ids; special tokens are spelled out unless skipped."""
        return self.backend.decode(self._checked_ids(ids), skip_special_tokens=skip_special_tokens)

    def str_tokens(self, ids: Iterable[SupportsIndex]) -> list[str]:
        """Each token decoded alone. A token that is part of a character reads "\\ufffd"."""
        rows = [[token] for token in self._checked_ids(ids)]
        return self.backend.decode_batch(rows, skip_special_tokens=False)

    def single_token(self, text: str) -> int:
        """The id of a text that is exactly one token (no BOS). Raises `InputError` naming the pieces otherwise."""
        ids = self._encode_bare(text)
        if len(ids) != 1:
            pieces = ", ".join(repr(piece) for piece in self.str_tokens(ids)) or "none"
            raise InputError(
                f"{text!r} is {len(ids)} tokens here, not one: {pieces}. "
                "Choose a text that is one token (a leading space counts), or pass token ids."
            )
        if ids[0] == self.unk_id and text.strip() != self.unk_token:
            raise InputError(f"{text!r} is not in this vocabulary: it becomes {self.unk_token!r}. Choose a known word.")
        return ids[0]

    def render_chat(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True) -> str:
        """The conversation as text, by the checkpoint's chat template, special tokens spelled out.

        For ids use `encode_chat`: `encode` of this text may put BOS in front of a template that has none.
        """
        if self.chat_template is None:
            raise InputError(
                "This checkpoint has no chat template, so a conversation cannot be rendered. "
                "Write the prompt as plain text and use encode()."
            )
        names = {"bos_token": self.bos_token, "eos_token": self.eos_token}
        names |= {"unk_token": self.unk_token, "pad_token": self.pad_token}
        return render_template(
            self.chat_template,
            messages,
            add_generation_prompt=add_generation_prompt,
            special_tokens={name: token for name, token in names.items() if token is not None},
        )

    def encode_chat(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True) -> list[int]:
        """Token ids of `render_chat`: exactly the special tokens that the template writes, none added."""
        return self._encode_bare(self.render_chat(messages, add_generation_prompt=add_generation_prompt))

    def save(self, folder: str | Path) -> None:
        """Write `tokenizer.json` and `tokenizer_meta.json` into `folder`; other files there stay."""
        meta = {name: getattr(self, name) for name in (*_META_FIELDS, *_LATER_FIELDS)}
        write_text(Path(folder) / _MODEL_FILE, self.backend.to_str())
        write_json(Path(folder) / _META_FILE, {"version": _META_VERSION, **meta})

    @classmethod
    def load(cls, folder: str | Path) -> Tokenizer:
        """The tokenizer that `save` wrote. Raises `CheckpointError` for a folder without one."""
        meta_path, model_path = Path(folder) / _META_FILE, Path(folder) / _MODEL_FILE
        if not meta_path.is_file() or not model_path.is_file():
            raise CheckpointError(
                f"{folder} holds no saved tokenizer ({_MODEL_FILE} and {_META_FILE}). "
                "Save one there with Tokenizer.save, or read a hub folder with tokenizer_from_folder."
            )
        meta = read_json(meta_path)
        if not isinstance(meta, dict) or meta.get("version") != _META_VERSION:
            raise CheckpointError(f"{meta_path} is not of version {_META_VERSION}. Save the tokenizer again.")
        given: dict[str, Any] = {**dict.fromkeys(_LATER_FIELDS), **meta}
        missing = [name for name in _META_FIELDS if name not in meta]
        if missing:
            raise CheckpointError(f"{meta_path} lacks {', '.join(missing)}. Save the tokenizer again.")
        return cls(parse_backend(model_path), **{name: given[name] for name in (*_META_FIELDS, *_LATER_FIELDS)})

    def _name(self, token_id: int | None) -> str | None:
        return None if token_id is None else self.backend.id_to_token(token_id)

    def _encode_bare(self, text: str) -> list[int]:
        return self.backend.encode(_checked_text(text), add_special_tokens=False).ids

    def _framed(self, ids: list[int], prepend_bos: bool | None) -> list[int]:
        wanted = self.add_bos if prepend_bos is None else prepend_bos
        if not wanted:
            return self._before + ids + self._after
        if self.bos_id is None:
            raise InputError("prepend_bos=True, but this checkpoint has no BOS token. Leave prepend_bos out.")
        bos = [] if ids[:1] == [self.bos_id] else [self.bos_id]
        return bos + self._before + ids + self._after

    def _checked_ids(self, ids: Iterable[SupportsIndex]) -> list[int]:
        row = _integers(ids)
        for token in row:
            if not 0 <= token < _ID_LIMIT or self.backend.id_to_token(token) is None:
                raise InputError(f"Token id {token} is out of range: this vocabulary has {self.n_vocab} tokens.")
        return row


_ID_LIMIT = 1 << 32  # the backend keeps ids in 32 bits
_META_FIELDS = ("add_bos", "bos_id", "eos_id", "pad_id", "unk_id", "chat_template", "add_eos")
_LATER_FIELDS = ("mask_id",)  # absent from files of earlier versions: such a tokenizer had none


def parse_backend(path: str | Path) -> Backend:
    """The `tokenizers.Tokenizer` of a `tokenizer.json`. Raises `CheckpointError` for one it cannot read."""
    from tokenizers import Tokenizer as Backend

    try:
        return Backend.from_file(str(path))
    except Exception as error:  # the Rust library raises bare Exception
        raise CheckpointError(f"{path} is not a tokenizer file that can be read: {error}.") from error


def frame_of(backend: Backend) -> tuple[list[int], list[int]]:
    """The token ids that the backend's post-processor puts before and after any single text."""
    if backend.num_special_tokens_to_add(False) == 0:
        return [], []
    for probe in ("a", "0", " ", "the"):
        encoding = backend.encode(probe)
        added = encoding.special_tokens_mask
        if 0 in added:
            first, last = added.index(0), len(added) - added[::-1].index(0)
            return encoding.ids[:first], encoding.ids[last:]
    raise CheckpointError("The tokenizer turns every probe text into nothing, so its special tokens cannot be placed.")


def _with_eos(after: list[int], eos_id: int | None, wanted: bool) -> list[int]:
    if not wanted:
        return [token for token in after if token != eos_id]
    return after if eos_id in after or eos_id is None else [*after, eos_id]


def _integers(ids: Any) -> list[int]:
    """Ids of any kind of row (list, array, tensor, iterator of these libraries' scalars) as Python integers."""
    values = ids.tolist() if hasattr(ids, "tolist") else ids
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise InputError(f"Token ids come as a flat list of integers, got {values!r}.")
    row = []
    for value in values:
        try:
            row.append(index(value))
        except TypeError:
            value_is = f"an entry {value!r}"
            raise InputError(f"Token ids come as a flat list of integers, got {value_is}. Pass one row.") from None
        if isinstance(value, bool):
            raise InputError(f"Token ids come as a flat list of integers, got an entry {value!r}: is this a mask?")
    return row


def _checked_text(text: Any) -> str:
    if not isinstance(text, str):
        raise InputError(f"Expected one text (str), got {type(text).__name__}. Use encode_batch for a list of texts.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"The text holds a lone surrogate at {error.start}, which is no character.") from error
    return text
