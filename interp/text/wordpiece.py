"""BERT's WordPiece from a bare `vocab.txt`, as checkpoints from before `tokenizer.json` have it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.errors import CheckpointError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

__all__ = ["WORDPIECE_ROLES", "is_wordpiece", "wordpiece_backend"]

WORDPIECE_ROLES = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}


def is_wordpiece(path: Path) -> bool:
    """Whether a file lists BERT's pieces: other tokenizers' `vocab.txt` lack its special tokens."""
    return path.is_file() and set(WORDPIECE_ROLES.values()) <= set(_pieces(path))


def wordpiece_backend(path: Path, config: Mapping[str, Any]) -> Backend:
    """The tokenizer of a vocabulary, one piece a line: BERT's cleaning, longest pieces first, `[CLS] … [SEP]` around.

    `do_lower_case` (by default true), `strip_accents` and `tokenize_chinese_chars` come from `tokenizer_config.json`.
    """
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

    vocabulary = {piece: i for i, piece in enumerate(_pieces(path))}
    backend = Backend(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=bool(config.get("tokenize_chinese_chars", True)),
        strip_accents=config.get("strip_accents"),
        lowercase=bool(config.get("do_lower_case", True)),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    sep, cls = (("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"]))
    backend.post_processor = processors.BertProcessing(sep, cls)
    backend.add_special_tokens(list(WORDPIECE_ROLES.values()))
    return backend


def _pieces(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}. Download it again.") from error
    return [line.rstrip("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]
