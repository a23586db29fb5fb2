"""The lens reads what whole logits say without holding them, and the tuned lens does better than the plain one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.circuits import lens as module
from interp.errors import InputError, StorageError
from interp.model.taps import NO_TAPS
from interp.model.transformer import HookedTransformer
from interp.results.lens import Lens
from tests.circuits.layouts import double, pairs_for
from tests.model.conftest import ZOO, _one_thread, randomize, talker, unchecked, words

__all__ = ["_one_thread", "talker", "unchecked", "words"]

PLACES = ["llama", "gpt2", "gemma2", "granite", "bert", "two_stacks", "bart", "gptj", "encoder"]


def naive(model: HookedTransformer, pairs: Any, pair: int) -> torch.Tensor:
    """Whole logits `[layer pos d_vocab]` of one prompt."""
    tokens = torch.tensor([pairs.clean[pair]])
    options = {"decoder_input": torch.tensor([pairs.clean_decoder[pair]])} if pairs.clean_decoder else {}
    logits, cache = model.run_with_cache(tokens, **options)
    n, address = model.main.config.n_layers, model.main.address
    cuts = [cache[f"{address}blocks.{layer}.hook_resid_pre"] for layer in range(n)]
    found = torch.cat([model.logits(model.main.finish(cut, NO_TAPS)) for cut in cuts])
    return torch.cat([found, logits])


@pytest.mark.parametrize("name", PLACES)
def test_every_number_is_that_of_whole_logits(name: str) -> None:
    model, pins = double(name), [7, 31]
    pairs = pairs_for(model)
    found = interp.lens(model, pairs, pins=pins, k=4, max_bytes=2000)
    for pair in range(len(pairs)):
        logits = naive(model, pairs, pair)
        log_p = logits.log_softmax(-1)
        table = found.frame.loc[found.frame["prompt"] == pair].sort_values(["layer", "pos"])
        shape = logits.shape[:2]
        np.testing.assert_allclose(
            table["entropy"].to_numpy().reshape(shape), -(log_p.exp() * log_p).sum(-1), atol=1e-9
        )
        kl = (log_p[-1].exp() * (log_p[-1] - log_p)).sum(-1)
        np.testing.assert_allclose(table["kl"].to_numpy().reshape(shape), kl, atol=1e-9)
        top = logits.topk(4).indices
        likely = found.tokens.loc[found.tokens["prompt"] == pair].sort_values(["layer", "pos", "rank"])
        np.testing.assert_array_equal(likely["token_id"].to_numpy().reshape(top.shape), top)
        np.testing.assert_allclose(
            likely["prob"].to_numpy().reshape(top.shape), log_p.gather(-1, top).exp(), atol=1e-10
        )
        pinned = found.pins.loc[found.pins["prompt"] == pair]
        for pin in pins:
            rows = pinned.loc[pinned["pin"] == str(pin)].sort_values(["layer", "pos"])
            ranks = 1 + (logits > logits[..., pin, None]).sum(-1)
            np.testing.assert_array_equal(rows["rank"].to_numpy().reshape(shape), ranks)
            np.testing.assert_allclose(rows["logit"].to_numpy().reshape(shape), logits[..., pin], atol=1e-10)


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2"])
def test_the_last_layer_is_the_models_own_prediction(name: str) -> None:
    model = randomize(HookedTransformer(ZOO[name]))
    tokens = torch.tensor([[3, 7, 1, 9, 2]])
    found = interp.lens(model, tokens, k=50)
    last = found.tokens.loc[found.tokens["layer"] == model.main.config.n_layers]
    ours = last.sort_values(["pos", "token_id"])["logit"].to_numpy().reshape(5, 50)
    np.testing.assert_allclose(ours, model(tokens)[0].detach(), atol=2e-6)
    assert (found.frame.loc[found.frame["layer"] == model.main.config.n_layers, "kl"] == 0).all()


def test_no_slice_of_logits_is_larger_than_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    model = HookedTransformer(
        interp.ModelConfig.decoder_only(n_layers=2, d_model=16, n_heads=2, d_vocab=9000, n_ctx=128, d_mlp=16)
    )
    sizes, finished = [], module._Vocabulary._finished

    def watched(self: Any, *given: Any) -> torch.Tensor:
        logits = finished(self, *given)
        sizes.append(logits.numel() * logits.element_size())
        return logits

    monkeypatch.setattr(module._Vocabulary, "_finished", watched)
    tokens = torch.arange(100)[None]
    few = interp.lens(model, tokens, pins=[5], max_bytes=64_000)
    assert max(sizes) <= 64_000 < 9000 * 100 * 4 and len(sizes) > 30
    whole = interp.lens(model, tokens, pins=[5])
    np.testing.assert_array_equal(few.pins["rank"], whole.pins["rank"])
    np.testing.assert_allclose(few.frame["entropy"], whole.frame["entropy"], atol=1e-4)


def test_pins_are_tokens_behind_the_text(talker: HookedTransformer) -> None:
    found = interp.lens(talker, "w1 w2", pins=["w3", 9])
    assert list(found.about["pins"].items()) == [("w3", 8), ("w4", 9)]
    assert len(found.curve("w3")) == 4 and found.curve(pos=0)["pin"].nunique() == 2
    with pytest.raises(InputError, match="'w7' was not pinned"):
        found.curve("w7")
    with pytest.raises(InputError, match="There is no position 5"):
        found.at(5)
    with pytest.raises(InputError, match="is 2 tokens"):
        interp.lens(talker, "w1 w2", pins=["w3 w4"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "deep"}, "kind is 'deep'"),
        ({"kind": "tuned"}, "A tuned lens has to be given"),
        ({"pins": [50]}, "The pin is 50; this"),
        ({"k": 51}, "k is 51"),
    ],
)
def test_a_mistake_is_said(unchecked: None, options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        interp.lens(double("llama"), [[1, 2, 3]], **options)


def test_named_axes_frames_figures_and_pages(tmp_path) -> None:
    from tests.browser.serving import HOSTILE, tiny_model

    model = tiny_model()
    found = interp.lens(model, [" ".join(HOSTILE), "the cat"], pins=["cat", HOSTILE[0]], k=3)
    assert found.values["kl"].dims == ("prompt", "layer", "pos") and found.values["pin_rank"].dims[-1] == "pin"
    assert np.isnan(found.values["kl"].sel(prompt=1, pos=3)).all()
    table = found.to_frame()
    assert len(table) == (len(HOSTILE) + 2) * 4 and "rank of cat" in table and table["top_prob"].between(0, 1).all()
    page = found.to_html(tmp_path / "page.html").read_text()
    for text in (found._repr_html_(), page.split("</script>", 1)[1]):
        assert "<img/src" not in text and "<script>alert" not in text
    assert "need not be used" in found.describe()
    again = Lens.load(found.save(tmp_path / "lens"))
    assert again.frame.equals(found.frame) and again.tokens.equals(found.tokens) and again.pins.equals(found.pins)
    run = interp.RunStore(tmp_path / "runs").save(found, spec={})
    assert interp.RunStore(tmp_path / "runs").open(run.id).results().pins.equals(found.pins)


# ---- the tuned lens ----


def texts(n: int = 12, length: int = 30) -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(0, 50, (length,), generator=generator).tolist() for _ in range(n)]


@pytest.mark.parametrize("rank", [16, None])
def test_a_fitted_lens_is_nearer_to_the_model_on_text_it_has_not_seen(rank: int | None) -> None:
    model = randomize(HookedTransformer(ZOO["llama"]))
    found = interp.TunedLens.fit(model, texts(30), rank=rank, steps=60, n_tokens=600, n_vocab=None)
    before, after = found.about["kl"]["before"], found.about["kl"]["after"]
    assert before[-1] == after[-1] == pytest.approx(0, abs=1e-5)
    assert all(b < a for a, b in zip(before[:-1], after[:-1], strict=True)), (before, after)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_estimate_over_drawn_tokens_is_unbiased_but_for_its_logarithm() -> None:
    from interp.circuits.tuned_fit import _Target

    model = double("llama")
    generator = torch.Generator().manual_seed(0)
    final = torch.randn(40, 32, generator=generator, dtype=torch.float64)
    moved = final + 0.3 * torch.randn(40, 32, generator=generator, dtype=torch.float64)
    rows = torch.arange(40)
    whole = float(_Target.of(model, final, None).divergence(model, moved, rows, generator))
    log_p, log_q = (model.logits(model.main.finish(x[None], NO_TAPS))[0].log_softmax(-1) for x in (final, moved))
    assert whole == pytest.approx(float((log_p.exp() * (log_p - log_q)).sum(-1).mean()), abs=1e-12)
    for n_vocab, error in ((40, 0.1), (48, 0.02)):  # the logarithm of an estimate is a little too small
        few = _Target.of(model, final, n_vocab)
        estimates = [float(few.divergence(model, moved, rows, generator)) for _ in range(100)]
        assert whole * (1 - error) < np.mean(estimates) < whole


def test_the_same_seed_gives_the_same_lens_and_no_steps_the_identity() -> None:
    model = randomize(HookedTransformer(ZOO["gpt2"]))
    settings: dict[str, Any] = {"rank": 4, "steps": 3, "n_tokens": 64, "n_vocab": 20}
    one, two = (interp.TunedLens.fit(model, texts(), **settings) for _ in range(2))
    assert torch.equal(one.B, two.B) and torch.equal(one.b, two.b)
    other = interp.TunedLens.fit(model, texts(), **settings, seed=1)
    assert not torch.equal(one.B, other.B)
    still = interp.TunedLens.fit(model, texts(), **{**settings, "steps": 0})
    x = torch.randn(5, 32)
    assert torch.equal(still.translate(x, 1), x)


def test_a_lens_is_saved_whole_and_used_on_its_own_model_only(tmp_path) -> None:
    model = randomize(HookedTransformer(ZOO["llama"]))
    fitted = interp.TunedLens.fit(model, texts(), rank=4, steps=5, n_tokens=64, n_vocab=None)
    again = interp.TunedLens.load(fitted.save(tmp_path / "lens"), model)
    assert torch.equal(again.A, fitted.A) and again.about == fitted.about
    tokens = [[1, 2, 3, 4]]
    ours, plain = interp.lens(model, tokens, kind="tuned", lens=again), interp.lens(model, tokens)
    x = model.run_with_cache(torch.tensor(tokens))[1]["resid_pre", 1]
    translated = x + (x @ fitted.A[1]) @ fitted.B[1] + fitted.b[1]
    expected = model.logits(model.main.finish(translated, NO_TAPS))[0].detach().max(-1).values
    rows = ours.tokens.loc[(ours.tokens["layer"] == 1) & (ours.tokens["rank"] == 1)].sort_values("pos")
    np.testing.assert_allclose(rows["logit"], expected, atol=1e-5)
    last = ours.frame["layer"] == 3
    np.testing.assert_allclose(ours.frame.loc[last, "entropy"], plain.frame.loc[last, "entropy"], atol=1e-6)
    assert "affine map" in ours.describe()
    with pytest.raises(InputError, match="other weights"):
        interp.lens(randomize(HookedTransformer(ZOO["llama"]), seed=2), tokens, kind="tuned", lens=again)
    with pytest.raises(InputError, match="3 layers of width 32"):
        interp.lens(randomize(HookedTransformer(ZOO["gpt2"])), tokens, kind="tuned", lens=again)
    run = interp.RunStore(tmp_path / "runs").save(fitted, spec={})
    assert torch.equal(interp.RunStore(tmp_path / "runs").open(run.id).results().b, fitted.b)
    (tmp_path / "lens" / "translators.safetensors").write_bytes(b"nonsense")
    with pytest.raises(StorageError, match="Cannot read"):
        interp.TunedLens.load(tmp_path / "lens")


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ("one text", {}, "Give a list of texts"),
        ([[1, 2, 3]], {}, "at least two"),
        ([[1, 2], [3, 4]], {"steps": -1}, "steps is -1"),
        ([[1, 2], [3, 4]], {"rank": 0}, "rank is 0"),
        ([[1, 2], [3, 4]], {"held_out": 1.0}, "held_out is 1.0"),
    ],
)
def test_a_mistake_in_fitting_is_said(unchecked: None, given: Any, options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        interp.TunedLens.fit(double("llama"), given, **options)


@pytest.mark.slow
def test_paris_rises_late_in_smollm2(smollm2: Any) -> None:
    ranks = interp.lens(smollm2, "The capital of France is", pins="Paris").curve()["rank"].to_numpy()
    assert ranks[-1] == 1 and ranks[:20].min() > 500
