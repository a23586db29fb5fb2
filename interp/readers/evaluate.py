"""`interp.evaluate`: how a model does on minimal pairs, Winogender schemas and facts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from interp.errors import InputError
from interp.pairs.checks import is_index
from interp.readers.blimp import MinimalPairs
from interp.readers.facts import Facts
from interp.readers.on_facts import on_facts
from interp.readers.on_pairs import on_pairs
from interp.readers.on_winogender import on_winogender
from interp.readers.scoring import Progress, check_can_score
from interp.readers.winogender import Winogender
from interp.results.evaluation import Evaluation

__all__ = ["evaluate"]

_ON = {MinimalPairs: on_pairs, Winogender: on_winogender, Facts: on_facts}


def evaluate(
    model: Any,
    data: Any,
    *,
    batch_size: int = 32,
    bos: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """How a model does on what `interp.readers` has read; 95% intervals by bootstrap over items, drawn by `seed`.

    Minimal pairs: the share whose good sentence has the higher log p (a tie is wrong, and counted), also with log p
    divided by the number of tokens. Winogender: how much likelier a sentence is with a male than with a female pronoun
    and so on, in nats, by occupation and by whom the pronoun means; no accuracy, since nothing is asked. Facts: the
    share whose attribute begins with the likeliest next token, and is what greedy decoding gives; its rank.

    Decoders read on from the left, with BOS in front where `bos` and there is one; masked encoders give
    pseudo-log-likelihoods (Salazar et al. 2020) of sentences, and are refused for facts. Rows run in batches of
    `batch_size`, padded on the left: one row for each sentence of a decoder, one for each token of an encoder. Raises
    `InputError` for encoder-decoders and for models without tokenizer or head.
    """
    measure = next((made for kind, made in _ON.items() if isinstance(data, kind)), None)
    if measure is None:
        raise InputError(
            f"data is a {type(data).__name__}. Give what read_blimp, read_winogender or read_facts of interp.readers "
            "returns."
        )
    if not is_index(batch_size) or batch_size < 1:
        raise InputError(f"batch_size is {batch_size!r}. Give a whole number of rows, at least 1.")
    if not is_index(seed) or seed < 0:
        raise InputError(f"seed is {seed!r}. Give a whole number, 0 or more.")
    if not len(data):
        raise InputError("There is nothing to evaluate on: these data are empty.")
    kind = check_can_score(model, sentences=not isinstance(data, Facts))
    front = None if kind == "encoder" or model.tokenizer.bos_id is None else bool(bos)
    found = measure(model, data, batch_size=int(batch_size), bos=front, seed=int(seed), progress=progress)
    about = {"model": model.cfg.model_name, "files": list(data.paths), "n_lines": data.n_lines}
    about |= {"n_skipped": data.n_skipped, "problems": [str(one) for one in data.problems]}
    about |= {"batch_size": int(batch_size), "bos": bool(front), "seed": int(seed), "level": 0.95}
    return replace(found, about={**found.about, **about})
