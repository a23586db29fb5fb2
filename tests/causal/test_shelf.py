"""Passes that are kept give what passes of their own would, and are run once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

import interp
import interp.causal.shelf as shelf
from interp.causal.texts import Text, run_texts
from interp.model.transformer import HookedTransformer
from tests.causal.conftest import LAYOUTS, rows

ModelOf = Callable[[str], HookedTransformer]
DECODERS = [name for name, config in LAYOUTS.items() if config.encoder is None]


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[list[Text]]:
    """The texts of every pass that is really made."""
    seen: list[list[Text]] = []

    def run(model, texts, **options):
        seen.append(list(texts))
        return run_texts(model, texts, **options)

    monkeypatch.setattr(shelf, "run_texts", run)
    return seen


def texts_of(lengths: list[int], seed: int) -> list[Text]:
    return [Text(tuple(row), (len(row) - 1,)) for row in rows(lengths, seed)]


@pytest.mark.parametrize("name", DECODERS)
def test_what_is_kept_is_what_was_asked_in_any_order_and_number(
    model_of: ModelOf, name: str, ran: list[list[Text]]
) -> None:
    model = model_of(name)
    stack = model.main
    some, more = texts_of([5, 3, 6], 1), texts_of([4, 2], 2)
    last = stack.config.n_layers - 1
    sites = {f"{stack.address}blocks.{last}.attn.hook_z"}
    with shelf.shared_recordings():
        shelf.record(model, some)
        shelf.record(model, more)
        n_run = len(ran)
        for chosen in ([some[2], more[0], some[0], some[0]], some, [more[1]]):
            found = shelf.record(model, chosen, sites=sites, resid={(stack.name, 1)}, keys=True)
            alone = run_texts(model, chosen, sites=sites, resid={(stack.name, 1)}, keys=True)
            for i in range(len(chosen)):
                assert found.place(stack.name, i) == alone.place(stack.name, i)
            for site in sites:
                torch.testing.assert_close(found.values[site], alone.values[site], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(found.resid[stack.name, 1], alone.resid[stack.name, 1], atol=1e-5, rtol=1e-5)
            for layer in range(last + 1):
                for kept, own in zip(found.keys[layer], alone.keys[layer], strict=True):
                    torch.testing.assert_close(kept, own, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(found.final, alone.final, atol=1e-5, rtol=1e-5)
        assert len(ran) == n_run  # nothing was run again
    shelf.record(model, some)
    assert len(ran) == n_run + 1  # and nothing is kept behind it


def test_what_has_no_room_is_run_again_and_the_oldest_goes_first(model_of: ModelOf, ran: list[list[Text]]) -> None:
    model, (one, two, three) = model_of("llama"), (texts_of([6], seed) for seed in (1, 2, 3))
    with shelf.shared_recordings():
        size = shelf._bytes(shelf.record(model, one))
    ran.clear()
    with shelf.shared_recordings(2 * size):
        for texts in (one, two, one, three, one, two):  # `one` was used after `two`, which goes
            shelf.record(model, texts)
    assert ran == [one, two, three, two]
    ran.clear()
    with shelf.shared_recordings(size - 1):
        for texts in (one, one):
            shelf.record(model, texts)
    assert ran == [one, one]


def test_what_is_dropped_to_make_room_is_still_there_for_the_call_that_needs_it(model_of: ModelOf) -> None:
    model, (one, two) = model_of("llama"), (texts_of([6], seed) for seed in (1, 2))
    both = run_texts(model, [*one, *two]).final
    with shelf.shared_recordings():
        size = shelf._bytes(shelf.record(model, one))
    with shelf.shared_recordings(size + size // 2):  # room for one of them
        shelf.record(model, one)
        found = shelf.record(model, [*one, *two]).final
    assert found is not None and both is not None
    torch.testing.assert_close(found, both, atol=1e-5, rtol=1e-5)


def test_patterns_noise_and_encoders_are_not_kept(model_of: ModelOf, ran: list[list[Text]]) -> None:
    model, (text,) = model_of("llama"), texts_of([5], 1)
    noisy = Text(text.tokens, text.reads, noise=torch.ones(5, model.cfg.d_model))
    with shelf.shared_recordings():
        for _ in range(2):
            plain = shelf.record(model, [noisy]).final
            shelf.record(model, [text], sites={"blocks.0.attn.hook_pattern"})
        assert len(ran) == 4
        quiet = shelf.record(model, [text]).final
        assert plain is not None and quiet is not None and not torch.allclose(plain, quiet)


def test_a_search_finds_the_same_with_and_without(monkeypatch: pytest.MonkeyPatch, ran: list[list[Text]]) -> None:
    made = interp.planted.make("ioi")
    options = {"pairs": {"abc": made.pairs["abc"]}, "top": 3, "n_random_sets": 1}
    kinds = ["name_mover", "s_inhibition"]
    kept = interp.find_heads(made.model, kinds, **options)
    with_shelf = sum(map(len, ran))
    ran.clear()
    monkeypatch.setattr(shelf, "_BYTES", 0)
    monkeypatch.setattr(shelf, "_keepable", lambda *_: False)
    alone = interp.find_heads(made.model, kinds, **options)
    assert with_shelf < sum(map(len, ran)) / 2
    assert kept.frame["verdict"].tolist() == alone.frame["verdict"].tolist()
    numbers = ["score", "writing", "effect", "denoise", "mean", "resample", "control", "p"]
    np.testing.assert_allclose(kept.frame[numbers].astype(float), alone.frame[numbers].astype(float), atol=1e-5)
