"""`make parity`: the parity checks of every family, by the functions that the tests call, and what they found as
docs/families.md. It fails, and writes nothing, if a difference is above the tolerance of the tests."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import interp
from interp.families.base import families
from tests.families import parity
from tests.families import test_parity as decoders
from tests.families import test_parity_encoders as encoders

__all__ = ["CHECKS", "PAGE", "checked", "main", "page", "rows_by_family"]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "families.md"
CHECKS = (
    "logits",
    "hidden states",
    "patterns",
    "right padding",
    "left padding",
    "incremental",
    "folder",
)
Found = tuple[str, dict[str, float]]  # the library's model type; check -> largest difference
_HEAD = """# Families, and how far they are from the transformers library

Made by `make parity`, with the functions that `make test-all` calls; a family that is not checked is not listed.
Measured with {versions}, float32, on the CPU: {n_models} tiny models of {n_families} families,
of the library's own classes, with random weights, gains and biases. A cell is the largest absolute difference over
all of a family's models; for models of one causal stack in units of the largest entry compared, where that is above
one. The tests allow {tolerance}; 0 is bit for bit, – is a check that the family has no use for.

What GGUF metadata leave out means what llama.cpp takes for granted. One thing is otherwise: where a Phi-3 file names a
window, llama.cpp disables it (it says so when it loads the file), the library keeps it, and so does `interp`.

| check | what is compared |
|---|---|
| logits | with the library's, of a single text and of a batch |
| hidden states | the residual entering every layer and leaving the last |
| patterns | every attention pattern, those of cross-attention too |
| right padding | all of the above at real tokens of padded rows |
| left padding | the same; where there is an encoder, logits of padded rows with the library's of each row alone |
| incremental | logits of a text in pieces over stored keys and values with those of the whole text |
| folder | our logits of the live model with those of the folder that it saved |
"""


def rows_by_family() -> dict[str, list[Any]]:
    """Family -> the tiny models that it is checked on: rows of the one test, names of cases of the other."""
    found: dict[str, list[Any]] = {family: list(rows) for family, rows in decoders.ROWS.items()}
    for name, case in encoders.CASES.items():
        found.setdefault(case.family, []).append(name)
    return dict(sorted(found.items()))


@torch.no_grad()
def checked(row: Any) -> Found:
    """The model type of one tiny model, and its largest difference in each check that it has."""
    with tempfile.TemporaryDirectory() as folder:
        return _encoder(row, Path(folder)) if isinstance(row, str) else _decoder(row, Path(folder))


def _decoder(row: parity.Row, folder: Path) -> Found:
    live = row.live()
    model = interp.load(live)
    one, tokens = (parity.sample_tokens(n_rows, decoders.VOCABULARY) for n_rows in (1, 3))
    found = _by_kind(parity.differences(live, model, text) for text in (one, tokens))
    for side, mask in (("right", parity.RIGHT), ("left", parity.LEFT)):
        found[f"{side} padding"] = _worst(parity.differences(live, model, tokens, mask).values())
    found["incremental"] = _worst(parity.steps_apart(model, tokens, mask) for mask in (None, parity.LEFT, parity.RIGHT))
    found["folder"] = parity.folder_apart(live, model, tokens, folder)
    return live.config.model_type, found


def _encoder(name: str, folder: Path) -> Found:
    found = _by_kind(encoders.differences(name, *encoders.inputs(name, n_rows)) for n_rows in (1, 3))
    right = encoders.right_padded_differences(name)
    found["right padding"] = _worst([*right.values(), encoders.padded_difference(name, "right")])
    found["left padding"] = encoders.padded_difference(name, "left")
    if encoders.CASES[name].two_stacks:
        found["incremental"] = encoders.incremental_difference(name)
    found["folder"] = encoders.folder_difference(name, folder)
    return encoders.pair(name)[0].config.model_type, found


def _by_kind(runs: Iterator[Mapping[str, float]]) -> dict[str, float]:
    worst: dict[str, float] = {}
    for run in runs:
        for name, apart in run.items():
            kind = "logits" if name == "logits" else "patterns" if "pattern" in name else "hidden states"
            worst[kind] = _worst([worst.get(kind, 0.0), apart])
    return worst


def _worst(apart: Iterable[float]) -> float:
    """The largest; NaN if there is one, which Python's max may pass over."""
    return float(np.max(list(apart)))


def page(results: Mapping[str, Sequence[Found]]) -> str:
    """The page for what was found: family -> its models."""
    import transformers

    head = _HEAD.format(
        versions=f"torch {torch.__version__} and transformers {transformers.__version__}",
        n_models=sum(len(found) for found in results.values()),
        n_families=len(results),
        tolerance=f"{parity.TOLERANCE:.0e}".replace("e-0", "e-"),
    )
    lines = [f"| family | model types | models | {' | '.join(CHECKS)} |", "|---" * (len(CHECKS) + 3) + "|"]
    for family, found in results.items():
        types = ", ".join(dict.fromkeys(kind for kind, _ in found))
        cells = [_cell([apart[check] for _, apart in found if check in apart]) for check in CHECKS]
        lines.append(f"| {family} | {types} | {len(found)} | {' | '.join(cells)} |")
    return "\n".join([head, *lines, ""])


def _cell(apart: list[float]) -> str:
    return f"{_worst(apart):.0e}".replace("e-0", "e-").replace("0e+00", "0") if apart else "–"


def main() -> int:
    """Check every family and write the page; 1 if one is too far from the library."""
    registered, results, too_far = {family.name for family in families()}, {}, []
    for family, rows in rows_by_family().items():
        assert family in registered, family
        results[family] = [checked(row) for row in rows]
        worst = _worst(apart for _, found in results[family] for apart in found.values())
        print(f"{family:12} {len(rows)} models, at most {worst:.0e} apart", flush=True)
        too_far += [family] if not worst <= parity.TOLERANCE else []
    if too_far:
        print(f"above {parity.TOLERANCE:.0e}: {', '.join(too_far)}. {PAGE} is left as it was.", file=sys.stderr)
        return 1
    PAGE.write_text(page(results), encoding="utf-8")
    return 0


if __name__ == "__main__":
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)  # the quickest for tiny tensors
    with tempfile.TemporaryDirectory() as cache:
        os.environ["INTERP_CACHE"] = cache
        sys.exit(main())
