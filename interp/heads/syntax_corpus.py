"""The sentences that syntax is looked for in: the sample of this package, CoNLL-U files, raw text, or token rows."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from interp.errors import InputError
from interp.heads.base import attention_kind
from interp.heads.syntax_grammar import drawn_sentences
from interp.heads.syntax_text import parsed_text
from interp.heads.syntax_words import LabelledTokens, labelled
from interp.model.transformer import HookedTransformer
from interp.readers.conllu import ParsedSentence, read_conllu
from interp.stats import smallest_p

__all__ = ["PER_ITEM", "Halves", "conllu_files", "halves_of", "is_labelled", "is_parsed", "written_sentences"]

PER_ITEM = 8  # sentences of each half for each of `n`: they cost one short pass
_SUFFIXES = (".conllu", ".conll", ".conllu.gz")


@dataclass(frozen=True)
class Halves:
    """Sentences that heads, relations and offsets are chosen by, and those reported on, also without BOS where the
    model is a decoder that has one. `about`: where they come from, and what was left out."""

    select: Sequence[LabelledTokens]
    report: Sequence[LabelledTokens]
    bare: Sequence[LabelledTokens] = ()
    about: Mapping[str, Any] = field(default_factory=dict)


def halves_of(model: HookedTransformer, corpus: Any, *, n: int, n_kinds: int, alpha: float, seed: int) -> Halves:
    """At most `PER_ITEM` × `n` sentences of either half; of the user's as many as there are. Raises `InputError` for
    too few to reject anything, and for text that this model or this installation cannot read."""
    most = PER_ITEM * n
    if is_labelled(corpus):
        given = list(corpus)
        for one in given:
            one.must_fit()
        select, report = _halved(given, most, seed)
        return _enough(Halves(select, report, (), {"from": "labelled token rows"}), n_kinds, alpha)
    if model.tokenizer is None:
        raise InputError(
            "This model has no tokenizer, so it cannot read sentences. Load it with tokenizer=, or give "
            "LabelledTokens (interp.heads.syntax_words) as corpus=: token ids, the tokens of each word, and arcs."
        )
    if corpus is None:
        both, source = [_sample(most, split, seed) for split in ("select", "report")], "drawn and written sentences"
    else:
        some, source = _sentences(corpus)
        both = list(_halved([one for one in some if one.has_tree], most, seed))
    bos = True if attention_kind(model) == "decoder" and model.tokenizer.bos_id is not None else None
    rows = [[labelled(one, model.tokenizer, bos=bos) for one in half] for half in both]
    fitting = [[len(row.tokens) <= model.cfg.n_ctx for row in half] for half in rows]
    bare = [labelled(one, model.tokenizer, bos=False) for one in both[1]] if bos else []
    kept = [[row for row, fits in zip(*one, strict=True) if fits] for one in zip(rows, fitting, strict=True)]
    about = {"from": source, "too long for the model": sum(not fits for half in fitting for fits in half)}
    bare = [row for row, fits in zip(bare, fitting[1], strict=True) if fits] if bare else []
    return _enough(Halves(kept[0], kept[1], bare, about), n_kinds, alpha)


def is_labelled(corpus: Any) -> bool:
    """Whether a corpus is a list of `LabelledTokens`."""
    some = isinstance(corpus, Sequence) and not isinstance(corpus, str) and len(corpus) > 0
    return some and all(isinstance(one, LabelledTokens) for one in corpus)


def is_parsed(corpus: Any) -> bool:
    """Whether a corpus is CoNLL-U: a file or folder of such, or several."""
    return not is_labelled(corpus) and bool(conllu_files(corpus))


@cache
def written_sentences() -> tuple[ParsedSentence, ...]:
    """The sentences of `sample_syntax/`, written and annotated by hand for this project."""
    folder = resources.files("interp.heads").joinpath("sample_syntax")
    with resources.as_file(folder) as path:
        return tuple(one for file in sorted(Path(path).glob("*.conllu")) for one in read_conllu(file))


def _sample(n: int, split: str, seed: int) -> list[ParsedSentence]:
    """A quarter (as far as they go) written sentences, every other one for either split; the rest drawn."""
    written = written_sentences()[int(split == "report") :: 2][: n // 4]
    return [*written, *drawn_sentences(n - len(written), split, seed)]


def _sentences(corpus: Any) -> tuple[list[ParsedSentence], str]:
    """The user's sentences with their trees, and how these were come by."""
    files = conllu_files(corpus)
    if files:
        return list(read_conllu(files)), f"CoNLL-U: {', '.join(files)}"
    return parsed_text(corpus)


def conllu_files(corpus: Any) -> list[str]:
    """The CoNLL-U files that a corpus names; none where it holds anything else."""
    paths = [corpus] if isinstance(corpus, str | os.PathLike) else corpus
    if not isinstance(paths, Sequence) or not all(isinstance(one, str | os.PathLike) for one in paths):
        return []
    found: list[str] = []
    for one in paths:
        if os.path.isdir(one):
            inside = sorted(str(file) for file in Path(one).rglob("*") if file.name.lower().endswith(_SUFFIXES))
            found += inside
        elif str(one).lower().endswith(_SUFFIXES):
            inside = [str(one)]
            found += inside
        else:
            inside = []
        if not inside:
            return []
    return found


def _halved(some: Sequence[Any], most: int, seed: int) -> tuple[list[Any], list[Any]]:
    """Two halves at random, of at most so many each."""
    order = np.random.default_rng([seed, *b"sentences"]).permutation(len(some)).tolist()
    half = min(len(some) // 2, most)
    return [some[i] for i in order[:half]], [some[i] for i in order[half : 2 * half]]


def _enough(halves: Halves, n_kinds: int, alpha: float) -> Halves:
    """The same, if sign flips of the reported sentences can reject anything."""
    n = min(len(halves.select), len(halves.report))
    least = smallest_p(n) * n_kinds if n else 1.0
    if least > alpha:
        raise InputError(
            f"There are {n} sentences for either half; with {n_kinds} kind{'s' if n_kinds > 1 else ''} the smallest "
            f"corrected p that sign flips can reach is {least:.3g}, above alpha={alpha:g}. Give more sentences."
        )
    return halves
