"""Pairs as text that a person can read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interp.pairs.pairs import PromptPairs

__all__ = ["token_table"]

_WIDTH = 110


def token_table(pairs: PromptPairs, pair: int) -> str:
    """Clean over corrupt, token under token, `^` where they differ, and lines for the named positions and the read."""
    title = f"pair {pair}: item {pairs.items[pair]}"
    if pairs.templates:
        title += f", template {pairs.templates[pair]}"
    marks = {name: spans[pair] for name, spans in pairs.positions.items()}
    texts = [("clean", pairs.clean[pair], "corrupt", pairs.corrupt[pair])]
    if pairs.clean_decoder:
        texts.append(("clean decoder", pairs.clean_decoder[pair], "corrupt decoder", pairs.corrupt_decoder[pair]))
    lines = [title]
    for last, (above, clean, below, corrupt) in enumerate(texts, start=1 - len(texts)):
        here = (marks if above == "clean" else {}) | ({"read": (pairs.read[pair],)} if last == 0 else {})
        rows = {
            "": [str(i) for i in range(len(clean))],
            above: [pairs.spell((one,)) for one in clean],
            below: [pairs.spell((one,)) for one in corrupt],
            "differs": ["^" if a != b else "" for a, b in zip(clean, corrupt, strict=True)],
        }
        rows |= {name: ["*" if i in spots else "" for i in range(len(clean))] for name, spots in here.items()}
        lines += _columns(rows)
    for what, sets in (("answer", pairs.answer), ("foil", pairs.foil)):
        if sets:
            lines.append(f"{what}: " + " or ".join(pairs.spell(one) for one in sets[pair]))
    return "\n".join(lines)


def _columns(rows: Mapping[str, Sequence[str]]) -> list[str]:
    """Rows of cells in columns, folded where they get too wide; a row without marks is left out of its fold."""
    label = max(len(name) for name in rows)
    widths = [max(len(cell) for cell in column) for column in zip(*rows.values(), strict=True)]
    lines: list[str] = []
    for fold in _folds(widths, _WIDTH - label):
        for name, cells in rows.items():
            if any(cells[i] for i in fold):
                line = f"{name:<{label}}  " + "  ".join(f"{cells[i]:<{widths[i]}}" for i in fold)
                lines.append(line.rstrip())
    return lines


def _folds(widths: Sequence[int], room: int) -> Iterable[list[int]]:
    fold: list[int] = []
    used = 0
    for i, width in enumerate(widths):
        if fold and used + width + 2 > room:
            yield fold
            fold, used = [], 0
        fold.append(i)
        used += width + 2
    yield fold
