"""Trained to the end, each recipe uses the route that is known for it, and the controls do without induction heads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import interp
from interp.dynamics import Checkpoints, recipe, train
from interp.dynamics.knowledge import FactSentences, PronounSentences
from interp.dynamics.training import stream
from interp.model.transformer import HookedTransformer

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
END = 7


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory):
    """Name -> checkpoints; each recipe is trained once."""
    root, done = tmp_path_factory.mktemp("recipes"), {}

    def get(name: str, seed: int = 0) -> Checkpoints:
        if (name, seed) not in done:
            done[name, seed] = train(name, out=Path(root) / f"{name}-{seed}", seed=seed)
        return done[name, seed]

    return get


def accuracy(found: Checkpoints, group: str) -> float:
    return found[-1].held_out[group]["accuracy"]


def restored_at_the_end(model: HookedTransformer, clean: torch.Tensor, corrupt: torch.Tensor) -> list[float]:
    """What clean attention at the end restores in the corrupt run, by layer: a share of the logit difference."""
    differ = clean[:, -1] != corrupt[:, -1]
    clean, corrupt = clean[differ], corrupt[differ]
    assert len(clean) >= 20
    pairs = interp.PromptPairs.from_tokens(
        clean[:, :-1],
        corrupt[:, :-1],
        answer=clean[:, -1].tolist(),
        foil=corrupt[:, -1].tolist(),
        positions={"END": END},
        templates=["row"] * len(clean),
    )
    effects = interp.patch(model, pairs, "attn_out", over=("layer",), at={"pos": "END"})
    return effects.normalize("pooled").values.mean("prompt").values.tolist()


def test_a_subject_reaches_the_end_through_attention_in_layer_1_alone(trained) -> None:
    found = trained("facts")
    assert accuracy(found, "fact") > 0.99 and isinstance(found.data, FactSentences)
    subject = torch.arange(40)
    clean, corrupt = (found.data.rows((subject + by) % 48, subject % 4) for by in (0, 17))
    assert restored_at_the_end(found[-1].load(), clean, corrupt) == pytest.approx([0.0, 1.0], abs=1e-3)


def test_a_name_reaches_the_end_through_attention_in_layer_1_alone(trained) -> None:
    found = trained("coreference")
    assert accuracy(found, "antecedent") > 0.99 and isinstance(found.data, PronounSentences)
    i = torch.arange(40)
    clean, corrupt = (
        found.data.rows(torch.stack([(i + by) % 24, (3 * i + by) % 24], dim=1), i % 8, i % 3 == 0, i % 2)
        for by in (0, 5)
    )
    assert restored_at_the_end(found[-1].load(), clean, corrupt) == pytest.approx([0.0, 1.0], abs=1e-3)


def test_copying_heads_look_at_the_token_that_comes_next(trained) -> None:
    found = trained("copy")
    assert accuracy(found, "copy") > 0.99
    tokens = found.data.draw(64, stream(9, "test")).tokens[:, :-1]
    _, cache = found[-1].load().run_with_cache(tokens, "pattern.0")
    n = recipe("copy").data.length  # type: ignore[attr-defined]
    looks = cache["pattern", 0].mean(0)[:, range(n + 1, 2 * n + 1), range(1, n + 1)].mean(1)
    assert looks.sum() > 1.0  # four heads that attend everywhere alike have less than 4 / 12 together


def test_a_reversal_is_read_off_the_mirrored_place(trained) -> None:
    found = trained("reversal")
    assert accuracy(found, "reversed") > 0.99
    examples, site = found.data.draw(64, stream(9, "test")), "decoder.cross_attn.pattern.0"
    assert examples.source is not None
    _, cache = found[-1].load().run_with_cache(examples.source, site, decoder_input=examples.tokens[:, :-1])
    n = examples.source.shape[1]
    looks = cache[site].mean(0)[:, range(n), range(n - 1, -1, -1)].mean(1)
    assert looks.sum() > 1.0  # four heads that attend everywhere alike have 4 / 8 together


def test_induction_appears_with_the_drop_in_loss_and_its_controls_do_without(trained) -> None:
    kinds = ("previous_token", "induction")
    grown, flat = (interp.emergence(trained(name), kinds=kinds) for name in ("induction", "induction-one-layer"))
    dated = {
        name: one.changes.set_index(["measure", "series"])["step"] for name, one in (("two", grown), ("one", flat))
    }
    assert 100 < dated["two"]["loss", "repeat"] < 600 and 100 < dated["two"]["induction", "sum"] < 600
    assert grown.series("loss", "repeat").iloc[-1] < 0.2 < 2.5 < flat.series("loss", "repeat").iloc[-1]
    assert grown.series("induction", "sum").iloc[-1] > 2 * flat.series("induction", "sum").iloc[-1]
    fixed = trained("induction-fixed-period")
    assert accuracy(fixed, "repeat") > 0.99
