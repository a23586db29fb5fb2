"""Packed rows give each text what it gets alone: whole, cut to the tokens that ask, or going on after stored keys."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from interp.causal.bundles import Bundle, Op, chunks
from interp.causal.texts import Text, run_texts
from interp.model.packing import Segment, pack
from interp.model.positions import Rows
from interp.model.taps import NO_TAPS
from interp.model.transformer import HookedTransformer
from interp.sites import Site
from tests.causal.conftest import LAYOUTS, rows

ONE_STACK = [n for n, c in LAYOUTS.items() if len(c.stacks) == 1]
CAUSAL = [n for n, c in LAYOUTS.items() if c.encoder is None]
LENGTHS = [5, 1, 7, 3]
ModelOf = Callable[[str], HookedTransformer]


def _texts(model: HookedTransformer) -> list[Text]:
    made = rows(LENGTHS, 4)
    if len(model.cfg.stacks) == 1:
        return [Text(tuple(row), (len(row) - 1,)) for row in made]
    return [
        Text(tuple(row), (len(row) - 1,), tuple(other)) for row, other in zip(made, rows([2, 6, 1, 4], 9), strict=True)
    ]


def _alone(model: HookedTransformer, text: Text, site: str) -> Tensor:
    options = {"decoder_input": torch.tensor([text.tokens])} if text.encoder else {}
    _, cache = model.run_with_cache(torch.tensor([text.encoder or text.tokens]), [site], **options)
    return cache[site][0]


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_texts_side_by_side_have_the_tensors_that_they_have_alone(model_of: ModelOf, name: str) -> None:
    model = model_of(name)
    texts = _texts(model)
    sites = [str(site) for site in model.sites if site.layer is not None]
    with torch.no_grad():
        packed = run_texts(model, texts, sites=sites)
        for site in sites:
            encoder = "cross_attn" in site and site.endswith(("hook_k", "hook_v", "hook_rot_k"))
            stack = "encoder" if encoder else model.sites[site].stack
            for i, text in enumerate(texts):
                alone = _alone(model, text, site)
                if "attn_scores" in site or "pattern" in site:
                    assert_close(packed.patterns[site][i], alone, atol=2e-5, rtol=1e-5)
                    continue
                start = packed.place(stack, i)
                assert_close(packed.values[site][start : start + len(alone)], alone, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_the_reads_of_all_texts_come_out_in_order(model_of: ModelOf, name: str) -> None:
    model = model_of(name)
    texts = [Text(text.tokens, tuple(range(0, len(text.tokens), 2)), text.encoder) for text in _texts(model)]
    with torch.no_grad():
        final = run_texts(model, texts).final
        assert final is not None
        logits = model.logits(final[None])[0].split([len(text.reads) for text in texts])
        for text, got in zip(texts, logits, strict=True):
            options = {"decoder_input": torch.tensor([text.tokens])} if text.encoder else {}
            alone = model(torch.tensor([text.encoder or text.tokens]), **options)[0, list(text.reads)]
            assert_close(got, alone, atol=5e-5, rtol=1e-5)


@pytest.mark.parametrize("name", CAUSAL)
def test_cells_go_on_after_the_stored_keys_of_their_own_text(model_of: ModelOf, name: str) -> None:
    """Two cells of text 2 from position 4, three of text 0 from 2, one of text 3 from the start, in another order."""
    model = model_of(name)
    texts = _texts(model)
    n_layers = model.main.config.n_layers
    with torch.no_grad():
        base = run_texts(model, texts, resid=[("", layer) for layer in range(n_layers)], keys=True)
        plan = [(2, 2, 4), (0, 3, 2), (3, 1, 0)]
        segments = [Segment(t, n, past, LENGTHS[t], base.place("", t), owner=i) for i, (t, n, past) in enumerate(plan)]
        for layer in range(n_layers):
            residuals = [_piece(base.resid["", layer], base.place("", t), past, LENGTHS[t], n) for t, n, past in plan]
            made, _ = model.main.block(layer)(
                torch.cat(residuals)[None],
                pack(segments, model.device, **model.main.distances),
                NO_TAPS,
                past=base.keys[layer],
            )
            pieces = made[0].split([n * (LENGTHS[t] - past) for t, n, past in plan])
            for (t, n, past), piece in zip(plan, pieces, strict=True):
                whole = _alone(model, texts[t], f"blocks.{layer}.hook_resid_post")[past:]
                assert_close(piece, whole.repeat(n, 1), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ONE_STACK)
def test_a_narrowed_layer_gives_the_asking_tokens_what_a_whole_one_does(model_of: ModelOf, name: str) -> None:
    """Some segments ask at a few positions, one at all; what goes on keeps their order."""
    model = model_of(name)
    texts = _texts(model)
    with torch.no_grad():
        layer = model.main.config.n_layers - 1
        base = run_texts(model, texts, resid=[("", layer)], keys=True)
        causal = name in CAUSAL
        plan = [(2, 2, 4 if causal else 0, (4, 6)), (0, 3, 2 if causal else 0, (3,)), (3, 1, 0, None)]
        segments = [
            Segment(t, n, past, LENGTHS[t], base.place("", t), queries, i)
            for i, (t, n, past, queries) in enumerate(plan)
        ]
        residuals = [_piece(base.resid["", layer], base.place("", t), past, LENGTHS[t], n) for t, n, past, _ in plan]
        made, _ = model.main.block(layer)(
            torch.cat(residuals)[None],
            pack(segments, model.device, **model.main.distances),
            NO_TAPS,
            past=base.keys[layer],
        )
        pieces = made[0].split([segment.n * segment.n_asking for segment in segments])
        for (t, n, past, queries), piece in zip(plan, pieces, strict=True):
            whole = _alone(model, texts[t], f"blocks.{layer}.hook_resid_post")
            wanted = whole[list(queries)] if queries is not None else whole[past:]
            assert_close(piece, wanted.repeat(n, 1), atol=2e-5, rtol=1e-5)


def _piece(resid: Tensor, place: int, past: int, length: int, n: int) -> Tensor:
    return resid[place + past : place + length].repeat(n, 1)


def test_positions_masks_and_places_of_packed_segments_are_their_texts(model_of: ModelOf) -> None:
    known: dict[tuple[int, int, tuple[int, ...] | None], Rows] = {}
    segments = [Segment(0, 2, 1, 4), Segment(1, 1, 0, 2, queries=(1,)), Segment(0, 1, 1, 4)]
    packed = pack(segments, torch.device("cpu"), known)
    assert packed.positions.tolist() == [[1, 2, 3, 1, 2, 3, 0, 1, 1, 2, 3]]
    assert packed.kept is not None and packed.kept.tolist() == [0, 1, 2, 3, 4, 5, 7, 8, 9, 10]
    assert packed.asking.positions.tolist() == [[1, 2, 3, 1, 2, 3, 1, 1, 2, 3]]
    assert packed.starts == [0, 6, 8, 11] and packed.asking_starts == [0, 6, 7, 10]
    assert pack(segments[::2], torch.device("cpu")).kept is None


def test_equal_segments_share_their_masks_over_all_layers(model_of: ModelOf) -> None:
    model = model_of("window")
    known: dict[tuple[int, int, tuple[int, ...] | None], Rows] = {}
    texts = [Text((3, 4, 5, 6, 7), (4,)), Text((8, 9, 3, 4, 5), (4,))]
    segments = [Segment(i, 1, 0, 5, owner=i) for i in range(2)]
    resid = torch.randn(1, 10, model.cfg.d_model, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for layer in range(2):
            resid, _ = model.main.block(layer)(resid, pack(segments, model.device, known), NO_TAPS)
    assert len(texts) == 2 and len(known) == 1


def test_chunks_hold_what_fits_and_lose_no_cell() -> None:
    op = Op(Site("hook_z", "attn", 0), (1,), torch.arange(7)[:, None])
    bundles = [Bundle(0, torch.arange(7), (op,), 1), Bundle(1, torch.arange(3) + 50, (), 0)]
    for limit in (1, 4, 9, 10, 100):
        found: dict[int, list[int]] = {0: [], 1: []}
        for group in chunks(bundles, lambda one: [5, 9][one.text] - one.start, limit):
            carried = sum(part.tokens([5, 9][part.text]) for part, _ in group)
            assert carried <= limit or sum(len(part.cells) for part, _ in group) == 1
            for part, whole in group:
                assert any(whole is bundle for bundle in bundles)
                found[part.text] += part.cells.tolist()
                if part.text == 0:  # a part's units are those of its cells
                    assert part.ops[0].units is not None and part.ops[0].units[:, 0].tolist() == part.cells.tolist()
        assert found == {0: list(range(7)), 1: [50, 51, 52]}
