"""Unedited passes kept for a while, so that analyses of the same texts one after another do not run them again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch

from interp.causal.texts import PATTERN_SITES, Recording, Text, run_texts
from interp.model.transformer import HookedTransformer
from interp.sites import Site

__all__ = ["record", "shared_recordings"]

_BYTES = 2 << 30


def record(
    model: HookedTransformer,
    texts: Sequence[Text],
    *,
    sites: Collection[str] = (),
    resid: Collection[tuple[str, int]] = (),
    keys: bool = False,
    logits: bool = True,
) -> Recording:
    """`run_texts`, or what `shared_recordings` still has of it."""
    shelf = _SHELF.get()
    if shelf is None or not _keepable(model, texts, sites):
        return run_texts(model, texts, sites=sites, resid=resid, keys=keys, logits=logits)
    return shelf.record(model, texts, frozenset(sites), frozenset(resid))


@contextmanager
def shared_recordings(max_bytes: int = _BYTES) -> Iterator[None]:
    """Within it, unedited passes of models with one stack are kept with every head's output and every residual, up to
    some bytes, the longest unused ones dropped first. Weights must not change within it."""
    token = _SHELF.set(_Shelf(max_bytes))
    try:
        yield
    finally:
        _SHELF.reset(token)


def _keepable(model: HookedTransformer, texts: Sequence[Text], sites: Collection[str]) -> bool:
    """Patterns are stored text by text, encoders and noise make passes their own: these are not kept."""
    plain = model.encoder is None or model.decoder is None
    return (
        plain
        and not any(text.noise is not None for text in texts)
        and not any(Site.parse(name).name in PATTERN_SITES for name in sites)
    )


@dataclass
class _Shelf:
    """Recordings by the text they hold; each text's newest."""

    max_bytes: int
    held: OrderedDict[int, tuple[Recording, int]] = field(default_factory=OrderedDict)  # by id, with their bytes
    where: dict[tuple[int, Text], tuple[int, int]] = field(default_factory=dict)  # (model, text): (id, its number)

    def record(
        self, model: HookedTransformer, texts: Sequence[Text], sites: frozenset[str], resid: frozenset[tuple[str, int]]
    ) -> Recording:
        held = {text: self._held(model, text, sites, resid) for text in dict.fromkeys(texts)}
        there = {text: place for text, place in held.items() if place is not None}  # also when it is dropped below
        missing = [text for text in held if text not in there]
        if missing:
            fresh = self._run(model, missing, sites, resid)
            if missing == list(texts):
                return fresh
            there |= {text: (fresh, i) for i, text in enumerate(missing)}
        found = [there[text] for text in texts]
        first = found[0][0]
        if all(one is first for one, _ in found) and [i for _, i in found] == list(range(len(first.texts))):
            return first
        return _assembled(model, texts, found, sites, resid)

    def _run(
        self, model: HookedTransformer, texts: list[Text], sites: frozenset[str], resid: frozenset[tuple[str, int]]
    ) -> Recording:
        """A pass over some texts, with all that is likely to be asked of them; kept, if it fits."""
        stack = model.main
        every = {f"{stack.address}blocks.{i}.attn.hook_z" for i in range(stack.config.n_layers)}
        layers = {(stack.name, i) for i in range(stack.config.n_layers)}
        made = run_texts(model, texts, sites=sites | every, resid=resid | layers, keys=True)
        size = _bytes(made)
        if size <= self.max_bytes:
            number = max(self.held, default=0) + 1
            self.held[number] = made, size
            self.where |= {(id(model), text): (number, i) for i, text in enumerate(texts)}
            while sum(size for _, size in self.held.values()) > self.max_bytes:
                dropped, _ = self.held.popitem(last=False)
                self.where = {text: at for text, at in self.where.items() if at[0] != dropped}
        return made

    def _held(
        self, model: HookedTransformer, text: Text, sites: frozenset[str], resid: frozenset[tuple[str, int]]
    ) -> tuple[Recording, int] | None:
        """The recording that holds all that is asked of a text, and the text's number in it."""
        number, i = self.where.get((id(model), text), (0, 0))
        if not number:
            return None
        one = self.held[number][0]
        self.held.move_to_end(number)
        return (one, i) if sites <= one.values.keys() and resid <= one.resid.keys() else None


def _assembled(
    model: HookedTransformer,
    texts: Sequence[Text],
    found: Sequence[tuple[Recording, int]],
    sites: frozenset[str],
    resid: frozenset[tuple[str, int]],
) -> Recording:
    """One recording of texts that were recorded in several."""
    name, starts = model.main.name, [0]
    for text in texts:
        starts.append(starts[-1] + len(text.tokens))
    places = [slice(one.place(name, i), one.place(name, i) + len(one.texts[i].tokens)) for one, i in found]
    both = list(zip((one for one, _ in found), places, strict=True))
    made = Recording(texts, {name: starts})
    made.values = {site: torch.cat([one.values[site][at] for one, at in both]) for site in sites}
    made.resid = {at: torch.cat([one.resid[at][place] for one, place in both]) for at in resid}
    for layer in both[0][0].keys:
        k, v = ([one.keys[layer][which][:, place] for one, place in both] for which in (0, 1))
        made.keys[layer] = torch.cat(k, dim=1), torch.cat(v, dim=1)
    finals = []
    for one, i in found:
        before = sum(len(text.reads) for text in one.texts[:i])
        assert one.final is not None
        finals.append(one.final[before : before + len(one.texts[i].reads)])
    made.final = torch.cat(finals)
    return made


def _bytes(one: Recording) -> int:
    tensors = [*one.values.values(), *one.resid.values(), *(x for pair in one.keys.values() for x in pair)]
    return sum(x.numel() * x.element_size() for x in tensors)


_SHELF: ContextVar[_Shelf | None] = ContextVar("recordings", default=None)
