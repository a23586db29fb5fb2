"""Tokenizers from GGUF metadata: the lists and flags under `tokenizer.ggml.*` -> `Tokenizer`.

Two kinds of vocabulary are built: "gpt2" (byte-level BPE; `tokenizer.ggml.pre` names how text is cut before
merging) and "llama" (SentencePiece BPE: merges follow from the scores, unknown characters fall back to bytes).
How a text is cut follows the models' own tokenizer files, which llama.cpp's table mirrors.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from mmap import mmap
from typing import TYPE_CHECKING, Any

from interp.errors import CheckpointError, UnsupportedModelError
from interp.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from tokenizers import AddedToken, pre_tokenizers
    from tokenizers import Tokenizer as Backend

__all__ = ["known_pre_tokenizers", "read_strings", "string_array", "tokenizer_from_gguf"]

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 1, 2, 3, 4, 6  # 5 is "unused": never produced by encoding


def tokenizer_from_gguf(metadata: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that a GGUF file's metadata (key -> plain Python value) describes.

    Raises `UnsupportedModelError` for another kind of vocabulary or an unknown `tokenizer.ggml.pre`, and
    `CheckpointError` for lists that are missing or contradict each other.
    """
    kind = metadata.get("tokenizer.ggml.model")
    if not isinstance(kind, str) or kind not in _BUILDERS:
        raise UnsupportedModelError(
            f"This file's vocabulary is of kind {kind!r} (tokenizer.ggml.model); known are "
            f"{', '.join(sorted(_BUILDERS))}. Load the model from a hub folder with a tokenizer.json instead."
        )
    lists = _Lists.read(metadata)
    backend, bos_default = _BUILDERS[kind](lists, metadata)
    ids = {name: _token_id(metadata, key, len(lists.tokens)) for name, key in _ID_KEYS.items()}
    _add_whole_tokens(backend, lists, [token for token in ids.values() if token is not None])
    return Tokenizer(
        backend,
        add_bos=_flag(metadata, "tokenizer.ggml.add_bos_token", bos_default) and ids["bos_id"] is not None,
        add_eos=_flag(metadata, "tokenizer.ggml.add_eos_token", False) and ids["eos_id"] is not None,
        chat_template=metadata.get("tokenizer.chat_template"),
        **ids,
    )


def known_pre_tokenizers() -> list[str]:
    """The values of `tokenizer.ggml.pre` that byte-level vocabularies are built for."""
    return sorted(_PRE)


def string_array(field: Any) -> list[str]:
    """The strings of an array field of `gguf.GGUFReader`: what `field.contents()` gives, in half its time.

    Nearly all of the cost of such an array is the reader's construction; `read_strings` goes without one.
    """
    parts = field.parts
    return [parts[index].tobytes().decode("utf-8") for index in field.data]


def read_strings(buffer: bytes | memoryview | mmap, offset: int, count: int) -> tuple[list[str], int]:
    """`count` GGUF strings (64-bit length, then UTF-8) of a little-endian file from `offset`; and where they end.

    Raises `CheckpointError` if the buffer ends before they do.
    """
    length_at = struct.Struct("<Q").unpack_from
    strings = []
    try:
        for _ in range(count):
            start = offset + 8
            offset = start + length_at(buffer, offset)[0]
            strings.append(str(buffer[start:offset], "utf-8"))
    except (struct.error, UnicodeDecodeError) as error:
        raise CheckpointError(f"A string array is damaged at string {len(strings)} of {count}: {error}.") from error
    if offset > len(buffer):
        raise CheckpointError(f"A string array is cut short: it needs {offset} bytes, the file has {len(buffer)}.")
    return strings, offset


@dataclass(frozen=True)
class _Lists:
    """The parallel lists of a vocabulary; `kinds` is all-normal where the file does not say."""

    tokens: list[str]
    kinds: list[int]
    merges: list[str] | None
    scores: list[float] | None

    @classmethod
    def read(cls, metadata: Mapping[str, Any]) -> _Lists:
        tokens = metadata.get("tokenizer.ggml.tokens")
        if not tokens:
            raise CheckpointError("The file has no vocabulary (tokenizer.ggml.tokens). It may be truncated.")
        if len(set(tokens)) != len(tokens):
            repeated = next(token for token in tokens if tokens.count(token) > 1)
            raise CheckpointError(f"The vocabulary holds {repeated!r} more than once, so its ids are ambiguous.")
        kinds = metadata.get("tokenizer.ggml.token_type")
        scores = metadata.get("tokenizer.ggml.scores")
        for name, values in (("token_type", kinds), ("scores", scores)):
            if values is not None and len(values) != len(tokens):
                raise CheckpointError(
                    f"tokenizer.ggml.{name} has {len(values)} entries for {len(tokens)} tokens. The file is damaged."
                )
        kinds = [_NORMAL] * len(tokens) if kinds is None else list(kinds)
        return cls(list(tokens), kinds, metadata.get("tokenizer.ggml.merges"), scores)


@dataclass(frozen=True)
class _Pre:
    """How a byte-level vocabulary cuts text before merging."""

    split: str | None = None  # None: GPT-2's own pattern
    digits_alone: bool = False
    nfc: bool = False
    whole_words_first: bool = False  # a piece that is a token as it stands is not merged
    bos_default: bool = False  # for files that do not say

    def cutter(self) -> pre_tokenizers.PreTokenizer:
        from tokenizers import Regex, pre_tokenizers

        if self.split is not None:
            first: list[Any] = [pre_tokenizers.Split(Regex(self.split), behavior="isolated")]
        else:
            first = [pre_tokenizers.Digits(individual_digits=True)] if self.digits_alone else []
        spell = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=self.split is None)
        return pre_tokenizers.Sequence([*first, spell]) if first else spell


_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_REST}"
_QWEN2 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_REST}"
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

_GPT2 = _Pre()
# Each digit alone, and before anything else: the white space in front of a digit is then a piece of its own,
# which GPT-2's pattern, used for these names by the transformers library's GGUF reader, would cut in two.
_DIGITS = _Pre(digits_alone=True)
_LLAMA3_BPE = _Pre(_LLAMA3, whole_words_first=True, bos_default=True)

_PRE = {
    "default": _GPT2,
    "gpt-2": _GPT2,
    "phi-2": _GPT2,
    "olmo": _Pre(nfc=True),
    "mpt": _Pre(nfc=True),
    "smollm": _DIGITS,
    "starcoder": _DIGITS,
    "refact": _DIGITS,
    "codeshell": _DIGITS,
    "command-r": _Pre(digits_alone=True, nfc=True),
    "llama-bpe": _LLAMA3_BPE,
    "llama3": _LLAMA3_BPE,
    "llama-v3": _LLAMA3_BPE,
    "smaug-bpe": _Pre(_LLAMA3),
    "dbrx": _Pre(_LLAMA3),
    "qwen2": _Pre(_QWEN2, nfc=True),
    "deepseek-r1-qwen": _Pre(_QWEN2),
    "tekken": _Pre(_TEKKEN, whole_words_first=True, bos_default=True),
}


def _byte_level(lists: _Lists, metadata: Mapping[str, Any]) -> tuple[Backend, bool]:
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, normalizers

    name = metadata.get("tokenizer.ggml.pre", "default")
    if name not in _PRE:
        raise UnsupportedModelError(
            f"This file cuts text the {name!r} way (tokenizer.ggml.pre), which is not known here; known are "
            f"{', '.join(known_pre_tokenizers())}. Load the model from a hub folder with a tokenizer.json instead."
        )
    if not lists.merges:
        raise CheckpointError("The file's byte-level vocabulary has no merges (tokenizer.ggml.merges).")
    pre = _PRE[name]
    merges = [(left, right) for left, _, right in (merge.partition(" ") for merge in lists.merges)]
    backend = Backend(_bpe(_byte_spelled(lists), merges, ignore_merges=pre.whole_words_first))
    if pre.nfc:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre.cutter()
    backend.decoder = decoders.ByteLevel()
    return backend, pre.bos_default


def _byte_spelled(lists: _Lists) -> dict[str, int]:
    """Token -> id. Files hold added tokens as plain text, and a few converters also leave ordinary ones so;
    those are respelled in the byte alphabet that the merges speak."""
    plain = {index for index, kind in enumerate(lists.kinds) if kind in (_CONTROL, _USER_DEFINED)}
    spelling = _byte_alphabet()
    alphabet = frozenset(spelling)
    vocabulary = {}
    for index, token in enumerate(lists.tokens):
        if index not in plain and not alphabet.issuperset(token):
            token = "".join(spelling[byte] for byte in token.encode("utf-8"))
        vocabulary[token] = index
    return vocabulary


def _byte_alphabet() -> str:
    """GPT-2's spelling of the 256 bytes: printable ones as themselves, the rest from U+0100 on."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return "".join(chr(byte if byte in printable else next(others)) for byte in range(256))


def _sentencepiece(lists: _Lists, metadata: Mapping[str, Any]) -> tuple[Backend, bool]:
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, normalizers

    if lists.scores is None:
        raise CheckpointError("The file's SentencePiece vocabulary has no scores (tokenizer.ggml.scores).")
    vocabulary = {token: index for index, token in enumerate(lists.tokens)}
    unknown = _token_id(metadata, "tokenizer.ggml.unknown_token_id", len(lists.tokens))
    if unknown is None and _UNKNOWN in lists.kinds:
        unknown = lists.kinds.index(_UNKNOWN)
    backend = Backend(
        _bpe(
            vocabulary,
            _merges_from_scores(lists),
            unk_token=None if unknown is None else lists.tokens[unknown],
            fuse_unk=True,
            byte_fallback=_BYTE in lists.kinds,
        )
    )
    # The prefix space is put before every text, also one that begins with a space, and again after a special
    # token: as SentencePiece and llama.cpp do. (transformers 5 skips it before a space and after a special token.)
    prefix = _flag(metadata, "tokenizer.ggml.add_space_prefix", True)
    spaces = normalizers.Replace(" ", "▁")
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces]) if prefix else spaces
    steps: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    return backend, True


def _merges_from_scores(lists: _Lists) -> list[tuple[str, str]]:
    """Every way to make an ordinary token of two others, best score first."""
    ordinary = {
        token: score
        for token, score, kind in zip(lists.tokens, lists.scores or (), lists.kinds, strict=True)
        if kind in (_NORMAL, _USER_DEFINED)
    }
    ranked = [
        (score, cut, token)
        for token, score in ordinary.items()
        for cut in range(1, len(token))
        if token[:cut] in ordinary and token[cut:] in ordinary
    ]
    ranked.sort(key=lambda entry: entry[:2], reverse=True)
    return [(token[:cut], token[cut:]) for _, cut, token in ranked]


def _bpe(vocabulary: dict[str, int], merges: Sequence[tuple[str, str]], **options: Any) -> Any:
    from tokenizers import models

    try:
        return models.BPE(vocab=vocabulary, merges=merges, **options)
    except Exception as error:  # the Rust library raises bare Exception
        raise CheckpointError(f"The file's merges do not fit its vocabulary: {error}.") from error


def _add_whole_tokens(backend: Backend, lists: _Lists, special: list[int]) -> None:
    """Control tokens, and those named as BOS, EOS, unknown or padding, are special; user-defined ones are added."""
    from tokenizers import AddedToken

    def whole(index: int, is_special: bool) -> AddedToken:
        return AddedToken(lists.tokens[index], special=is_special, normalized=False)

    control = {index for index, kind in enumerate(lists.kinds) if kind == _CONTROL}.union(special)
    backend.add_special_tokens([whole(index, True) for index in sorted(control)])
    user = [index for index, kind in enumerate(lists.kinds) if kind == _USER_DEFINED and index not in control]
    backend.add_tokens([whole(index, False) for index in user])


def _token_id(metadata: Mapping[str, Any], key: str, n_tokens: int) -> int | None:
    value = metadata.get(key)
    if value is None:
        return None
    if not 0 <= int(value) < n_tokens:
        raise CheckpointError(f"{key} is {value}, but the vocabulary has {n_tokens} tokens.")
    return int(value)


def _flag(metadata: Mapping[str, Any], key: str, default: bool) -> bool:
    value = metadata.get(key)
    return default if value is None else bool(value)


_BUILDERS = {"gpt2": _byte_level, "llama": _sentencepiece}
_ID_KEYS = {
    "bos_id": "tokenizer.ggml.bos_token_id",
    "eos_id": "tokenizer.ggml.eos_token_id",
    "pad_id": "tokenizer.ggml.padding_token_id",
    "unk_id": "tokenizer.ggml.unknown_token_id",
}
