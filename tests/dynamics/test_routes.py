"""Trained to the end, each recipe uses the route that is known for it, and the controls do without induction heads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import interp
from interp.dynamics import Checkpoints, Intervention, compare_formation, conflict, recipe, train
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


@pytest.mark.parametrize("name", ["reversal", "reversal-additive", "reversal-lengths"])
def test_a_reversal_is_read_off_the_mirrored_place(trained, name: str) -> None:
    found = trained(name)
    assert accuracy(found, "reversed") > 0.99
    examples, site = found.data.draw(64, stream(9, "test")), "decoder.cross_attn.pattern.0"
    assert examples.source is not None
    _, cache = found[-1].load().run_with_cache(examples.source, site, decoder_input=examples.tokens[:, :-1])
    said = examples.scored["reversed"][:, 1:]
    mirrored = (said.sum(1, keepdim=True) - 1 - torch.arange(said.shape[1])).clamp(min=0)
    looks = cache[site].gather(3, mirrored[:, None, :, None].expand(-1, 4, -1, 1))[..., 0]
    looks = (looks * said[:, None]).sum(dim=(0, 2)) / said.sum()
    assert looks.sum() > 1.0  # four heads that attend everywhere alike have 4 / 8 together


def test_without_heads_in_layer_0_induction_does_not_form_and_with_one_given_it_does(trained, tmp_path) -> None:
    held = {
        "given": train("induction", out=tmp_path / "a", interventions=[Intervention("0.0", "previous_token")]),
        "none": train("induction", out=tmp_path / "b", interventions=[Intervention("0.*")]),
    }
    table = compare_formation({"plain": trained("induction"), **held}, "repeat").set_index("training")
    assert table["accuracy"]["given"] > 0.95 and table["halfway"]["given"] < 1.2 * table["halfway"]["plain"]
    assert table["accuracy"]["none"] < 0.5 and table["loss"]["none"] > 1.0


def test_a_statement_reaches_the_end_through_attention_in_layer_1_and_layer_0_has_no_part(trained) -> None:
    found = trained("facts-in-context")
    assert accuracy(found, "context") > 0.95 and accuracy(found, "weights") > 0.95
    got = conflict(found[-1:], n=128)
    by_layer = got.heads.groupby("layer")["effect"].sum()
    assert by_layer[0] == pytest.approx(0.0, abs=1e-4) and by_layer[1] > 1.0


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
