"""Windows of natural text, as independent items: from the passages bundled with the project or from the user's files.

The bundled passages (`sample_text/`: stories, letters, dialogue, reports, lists, tables, code) were written for this
project, so that no model has learned them by heart.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from interp.errors import InputError
from interp.model.tokens import Batch
from interp.model.transformer import HookedTransformer

__all__ = ["Corpus", "NaturalText", "natural_text", "passages"]

Corpus = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

_SUFFIXES = (".txt", ".md")


@dataclass(frozen=True)
class NaturalText:
    """`batch`: full windows, nothing padded; `passage_index`: the place of each row's passage in `passages(corpus)`;
    `start`: where in the passage's tokens the row begins, BOS not counted."""

    batch: Batch
    passage_index: Int[Tensor, " batch"]
    start: Int[Tensor, " batch"]
    has_bos: bool


def passages(corpus: Corpus | None = None) -> list[str]:
    """The bundled passages in the order of their names, or the text of the user's files, one passage a file.

    `corpus` is the path of a file, of a folder (its .txt and .md files and those of its subfolders, by name; hidden
    and empty ones are skipped), or several such paths. A file reached twice counts once. Raises `InputError` for a
    path that is not there, a file that is empty or not UTF-8, and a folder without text.
    """
    if corpus is None:
        entries = resources.files("interp.tasks").joinpath("sample_text").iterdir()
        texts = sorted((entry.name, entry.read_text("utf-8")) for entry in entries if entry.name.endswith(".txt"))
        return [text for _, text in texts]
    found: dict[Path, str] = {}
    for path in corpus if isinstance(corpus, Sequence) and not isinstance(corpus, str) else [corpus]:
        found |= _texts_at(path)
    if not found:
        raise InputError("corpus= is an empty list. Give at least one path, or leave it out for the bundled sample.")
    return list(found.values())


def natural_text(
    model: HookedTransformer,
    n: int,
    *,
    n_tokens: int = 128,
    corpus: Corpus | None = None,
    bos: bool = True,
    seed: int = 0,
) -> NaturalText:
    """`n` windows of exactly `n_tokens` tokens, BOS in front counted in if `bos` and the tokenizer has one.

    Windows never overlap, cross the border of a passage or hold a special token besides BOS. Where they lie is random,
    and they are spread: no passage gives its second window before each that can has given one. More windows with the
    same seed begin with those of fewer. Raises `InputError` where the text holds fewer than `n`.
    """
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise InputError(
            "This model has no tokenizer, so it cannot read text. Load it with tokenizer=, or use random tokens."
        )
    bos_id: int | None = tokenizer.bos_id if bos else None
    has_bos = bos_id is not None
    width = n_tokens - has_bos  # tokens of text in a window
    if n < 1 or width < 2:
        raise InputError(f"Cannot cut {n} windows of {n_tokens} tokens. Ask for at least 1 of at least {2 + has_bos}.")
    if n_tokens > model.cfg.n_ctx:
        raise InputError(f"n_tokens={n_tokens} is more than this model reads. Ask for at most {model.cfg.n_ctx}.")
    texts = passages(corpus)
    rows = [torch.tensor(row, dtype=torch.long) for row in tokenizer.encode_batch(texts, prepend_bos=False)]
    special = torch.tensor(sorted(tokenizer.special_ids), dtype=torch.long)
    passage, start = _spread_windows(rows, special, width, seed)
    if n > len(start):
        size = f"{len(rows)} passages, {sum(map(len, rows))} tokens"
        raise InputError(
            f"Asked for {n} windows of {n_tokens} tokens; the text ({size}) holds {len(start)} without overlap. "
            "Ask for fewer or shorter ones, or give more text as corpus=."
        )
    passage, start = passage[:n], start[:n]
    tokens = torch.stack([rows[i][j : j + width] for i, j in zip(passage.tolist(), start.tolist(), strict=True)])
    if bos_id is not None:
        tokens = torch.cat([torch.full((n, 1), bos_id), tokens], dim=1)
    device = model.device
    return NaturalText(Batch(tokens.to(device)), passage.to(device), start.to(device), has_bos)


def _texts_at(path: Any) -> dict[Path, str]:
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(
            f"corpus= takes paths of files and folders, got {path!r}. Give a str, a Path, or a list of them."
        )
    if os.path.isfile(path):
        text = _read(Path(path))
        if not text.strip():
            raise InputError(f"{path} holds no text. Leave it out of corpus=.")
        return {Path(path).resolve(): text}
    if not os.path.isdir(path):  # unlike pathlib's, these tests are also False for what cannot be a path at all
        raise InputError(f"There is no file or folder {str(path)[:200]!r}. corpus= takes paths, not the text itself.")
    inside = (file.relative_to(path) for file in sorted(Path(path).rglob("*")) if file.is_file())
    names = [name for name in inside if not any(part.startswith(".") for part in name.parts)]
    files = [Path(path) / name for name in names if name.suffix.lower() in _SUFFIXES]
    texts = {file.resolve(): text for file in files if (text := _read(file)).strip()}
    if not texts:
        raise InputError(f"The folder {path} holds no {' or '.join(_SUFFIXES)} file with text. Name other files.")
    return texts


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")  # without the mark that some editors put in front
    except UnicodeDecodeError as error:
        raise InputError(
            f"{file} is not UTF-8 text (byte {error.start}). Save it as UTF-8, or leave it out of corpus=."
        ) from error
    except OSError as error:
        raise InputError(f"Cannot read {file}: {error.strerror or error}. Leave it out of corpus=.") from error


def _spread_windows(
    rows: list[Tensor], special: Tensor, width: int, seed: int
) -> tuple[Int[Tensor, " window"], Int[Tensor, " window"]]:
    """Passage and start of all windows that fit: first one of each passage in random order, then a second, ..."""
    generator = torch.Generator().manual_seed(seed)
    starts = []
    for row in rows:
        fitting = _windows(torch.isin(row, special), width, generator)
        starts.append(fitting[torch.randperm(len(fitting), generator=generator)])
    passage = torch.cat([torch.full_like(start, i) for i, start in enumerate(starts)])
    turn = torch.cat([torch.arange(len(start)) for start in starts])
    order = torch.randperm(len(turn), generator=generator)
    order = order[turn[order].argsort(stable=True)]
    return passage[order], torch.cat(starts)[order]


def _windows(is_border: Tensor, width: int, generator: torch.Generator) -> Int[Tensor, " window"]:
    """Starts of as many disjoint windows as fit between the borders, the spare tokens left out at random."""
    borders = [-1, *is_border.nonzero()[:, 0].tolist(), len(is_border)]
    starts = [torch.empty(0, dtype=torch.long)]
    for before, after in pairwise(borders):
        length = after - before - 1
        count = length // width
        spare = length - count * width
        slots = torch.randperm(count + spare, generator=generator)[:count].sort().values  # all layouts equally likely
        starts.append(before + 1 + slots + (width - 1) * torch.arange(count))
    return torch.cat(starts)
