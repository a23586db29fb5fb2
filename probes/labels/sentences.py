"""Sentences whose words are tagged and joined in a tree, and the tokens that stand for their words.

They are drawn by a grammar and written by hand (see `interp.heads.syntax_grammar`), or the user's: CoNLL-U files, or
raw text, which spaCy parses where the extra `syntax` is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from interp.errors import InputError
from interp.heads.syntax_corpus import conllu_files, written_sentences
from interp.heads.syntax_grammar import drawn_sentences
from interp.heads.syntax_text import parsed_text
from interp.heads.syntax_words import labelled
from interp.model.transformer import HookedTransformer
from interp.readers.conllu import ParsedSentence, Word, read_conllu
from interp.tasks.base import SPLITS
from interp.tasks.words import rng
from probes.labels.base import LabelRequest
from probes.sources import Labelled, label_column, set_bos

__all__ = ["OPTIONS", "of_words", "sentences_for"]

OPTIONS = ("corpus", "subword")
"""`corpus`: paths of CoNLL-U files or of text; `subword`: which token of a word is read, "last" or "first"."""


def sentences_for(request: LabelRequest) -> tuple[list[ParsedSentence], str]:
    """`n` sentences for each split, and where they come from: a quarter written ones, as far as they go, else drawn."""
    corpus = request.options.get("corpus")
    if corpus is None:
        found: list[ParsedSentence] = []
        for split in request.splits:
            written = written_sentences()[SPLITS.index(split) :: 2][: request.n // 4]
            found += [*written, *drawn_sentences(request.n - len(written), split, request.seed)]
        return found, "drawn and written sentences"
    files = conllu_files(corpus)
    every, source = (list(read_conllu(files)), "CoNLL-U") if files else parsed_text(corpus)
    every = [one for one in every if one.has_tree]
    rng(request.seed, "sentences").shuffle(every)
    mine = [one for name in request.splits for one in every[SPLITS.index(name) :: 2][: request.n]]
    if not mine:
        raise InputError("The corpus holds no sentence with a tree. Give other files.")
    return mine, source


def of_words(
    model: HookedTransformer,
    request: LabelRequest,
    line: Callable[[ParsedSentence, int], Mapping[str, Any] | None],
    targets: Sequence[str],
    *,
    whole: bool = False,
) -> Labelled:
    """A row for each word that `line` gives columns for (targets among them), at its last or first token. With `whole`
    sentences are left out in which a word has no token of its own. Too long ones always are."""
    at = request.options.get("subword", "last")
    if at not in ("last", "first"):
        raise InputError(f'subword={at!r} is no end of a word. Choose "last" or "first".')
    sentences, source = sentences_for(request)
    bos = set_bos(model, request.prepend_bos)
    tokens, lines, left = [], [], {"too long": 0, "words without a token": 0}
    for one in sentences:
        row = labelled(one, model.tokenizer, bos=bos)
        if len(row.tokens) > model.cfg.n_ctx:
            left["too long"] += 1
            continue
        if not all(row.words):
            left["words without a token"] += 1
            if whole:
                continue
        for number, (word, places) in enumerate(zip(one.words, row.words, strict=True)):
            more = line(one, number) if places else None
            if more is not None:
                pos = places[-1 if at == "last" else 0]
                lines.append({"text": len(tokens), "pos": pos, "type": _type(word), **more})
        tokens.append(np.array(row.tokens, dtype=np.int32))
    if not lines:
        raise InputError("None of the words has such a label. Give other sentences as corpus=.")
    table = pd.DataFrame(lines).sort_values(["text", "pos"], kind="stable", ignore_index=True)
    labels = pd.DataFrame({name: label_column(table.pop(name).tolist()) for name in targets})
    if "group" not in table:
        table["group"] = table["type"]
    about = {"from": source, "read at": f"the {at} token of each word", "left_out": left, "prepend_bos": bos}
    return Labelled(tokens, table, labels, about)


def _type(word: Word) -> str:
    return word.form.lower()
