"""A fit that was stopped goes on with the same numbers, and says whether more steps would help."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.circuits import tuned_fit
from interp.errors import InputError
from interp.model.taps import NO_TAPS
from interp.model.transformer import HookedTransformer
from tests.circuits.layouts import double, rows
from tests.model.conftest import ZOO, _one_thread, randomize, unchecked

__all__ = ["_one_thread", "unchecked"]

SMALL: dict[str, Any] = {"rank": 4, "steps": 6, "n_tokens": 64, "n_vocab": 20}
TEXTS = rows([20] * 12, 3)


class Stopped(Exception):
    pass


def stop_after(layers: int) -> Any:
    def progress(stage: str, done: int, total: int) -> None:
        if done == layers:
            raise Stopped

    return progress


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The layers that are trained from here on."""
    trained: list[int] = []
    real = tuned_fit._fit_layer

    def fit(model: Any, x: Any, target: Any, settings: Any, layer: int, start: Any) -> Any:
        trained.append(layer)
        return real(model, x, target, settings, layer, start)

    monkeypatch.setattr(tuned_fit, "_fit_layer", fit)
    return trained


@pytest.mark.parametrize("rank", [4, None])
def test_a_fit_that_was_stopped_goes_on_from_there_with_the_same_numbers(
    rank: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = double("llama")
    whole = interp.TunedLens.fit(model, TEXTS, **{**SMALL, "rank": rank})
    with pytest.raises(Stopped):
        interp.TunedLens.fit(model, TEXTS, **{**SMALL, "rank": rank}, keep=tmp_path / "kept", progress=stop_after(2))
    trained = counted(monkeypatch)
    again = interp.TunedLens.fit(model, TEXTS, **{**SMALL, "rank": rank}, keep=tmp_path / "kept")
    assert trained == [2]
    for name in ("A", "B", "b"):
        assert torch.equal(getattr(whole, name), getattr(again, name))
    assert whole.about == again.about


def test_what_was_kept_for_another_question_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tiny = double("gpt2"), {**SMALL, "steps": 1, "n_tokens": 16}
    interp.TunedLens.fit(model, TEXTS, **tiny, keep=tmp_path)
    trained = counted(monkeypatch)
    interp.TunedLens.fit(model, TEXTS, **tiny, keep=tmp_path)
    assert trained == []
    for change in ({"seed": 1}, {"steps": 2}, {"lr": 0.02}):
        trained.clear()
        interp.TunedLens.fit(model, TEXTS, **{**tiny, **change}, keep=tmp_path)
        assert trained == [0, 1], change
    trained.clear()
    interp.TunedLens.fit(model, rows([20] * 12, 4), **tiny, keep=tmp_path)
    assert trained == [0, 1], "other texts"
    trained.clear()
    other = randomize(HookedTransformer(ZOO["gpt2"], dtype=torch.float64), seed=5)
    interp.TunedLens.fit(other, TEXTS, **tiny, keep=tmp_path)
    assert trained == [0, 1], "another model"


def test_a_damaged_layer_is_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = double("llama")
    whole = interp.TunedLens.fit(model, TEXTS, **SMALL, keep=tmp_path)
    (damaged,) = tmp_path.glob("*-001.safetensors")
    damaged.write_bytes(damaged.read_bytes()[:100])
    trained = counted(monkeypatch)
    again = interp.TunedLens.fit(model, TEXTS, **SMALL, keep=tmp_path)
    assert trained == [1] and torch.equal(again.B, whole.B)


def test_a_fit_that_goes_on_from_a_lens_begins_where_that_one_ended() -> None:
    model = double("gpt2")
    first = interp.TunedLens.fit(model, TEXTS, **SMALL)
    still = interp.TunedLens.fit(model, TEXTS, **{**SMALL, "steps": 0}, start=first)
    x = torch.randn(5, 32, dtype=torch.float64)
    for layer in range(2):
        torch.testing.assert_close(still.translate(x, layer), first.translate(x, layer), rtol=1e-9, atol=1e-9)
    further = interp.TunedLens.fit(model, TEXTS, **{**SMALL, "steps": 40}, start=first)
    assert np.mean(further.about["kl"]["after"]) < np.mean(first.about["kl"]["after"])
    assert further.about["steps_in_all"] == 46 and further.A.shape == first.A.shape
    with pytest.raises(InputError, match="Fit one to this model"):
        interp.TunedLens.fit(double("llama"), TEXTS, **SMALL, start=first)


def test_held_out_divergences_are_those_of_whole_logits() -> None:
    model = double("llama")
    fitted = interp.TunedLens.fit(model, TEXTS, **SMALL, held_out=0.1)
    train, test = tuned_fit._split(TEXTS, 0.1, 0)
    assert len(test) == 1 and len(train) == 11
    tokens = torch.tensor(test)[:, :9]
    _, cache = model.run_with_cache(tokens)
    target = model(tokens)[0, 1:9].log_softmax(-1)
    for layer in range(3):
        for when, moved in (("before", lambda x, _: x), ("after", fitted.translate)):
            x = moved(cache["resid_pre", layer][0, 1:9], layer)
            own = model.logits(model.main.finish(x[None], NO_TAPS))[0].log_softmax(-1)
            kl = float((target.exp() * (target - own)).sum(-1).mean())
            assert fitted.about["kl"][when][layer] == pytest.approx(kl, abs=1e-9), (when, layer)


def test_it_says_layer_by_layer_whether_it_is_converged(tmp_path: Path) -> None:
    short = interp.TunedLens.fit(double("llama"), rows([30] * 30, 3), rank=16, steps=4, n_tokens=600, n_vocab=None)
    table = short.to_frame()
    assert (table["verdict"] == "still falling").all() and (table["second_half"] > 0.02).all()
    assert short.values.dims == ("when", "layer")
    np.testing.assert_allclose(short.values.sel(when="after"), short.about["kl"]["after"][:-1])
    assert "Not converged: of 3 layers still falling in 3" in short.describe()
    for said in (short._repr_html_(), short.to_html(tmp_path / "page.html").read_text()):
        assert "Not converged" in said
    assert "Not converged" in interp.lens(double("llama"), [[1, 2]], kind="tuned", lens=short).describe()
    tokens = torch.zeros(3, 1, 1)
    kl = {"before": [9.0, 9.0, 9.0, 0.0], "halfway": [1.01, 1.0, 3.0, 0.0], "after": [1.0, 2.0, 10.0, 0.0]}
    made = interp.TunedLens(tokens, tokens, tokens[..., 0], {"kl": kl})
    assert made.to_frame()["verdict"].tolist() == ["converged", "rising", "no better"]
    kl = {"before": [9.0] * 3, "halfway": [1.01] * 3, "after": [1.0] * 3}
    assert interp.TunedLens(tokens, tokens, tokens[..., 0], {"kl": kl}).convergence.startswith("Converged")
    bare = interp.TunedLens(tokens, tokens, tokens[..., 0], {})
    assert "Nothing is known" in bare.describe() and "not measured" in bare.convergence
    assert [trace.name for trace in short.plot().data] == ["before", "halfway", "after"]


def test_a_model_in_half_precision_is_fitted_in_single() -> None:
    model = randomize(HookedTransformer(ZOO["llama"], dtype=torch.bfloat16))
    found = interp.TunedLens.fit(model, TEXTS, rank=8, steps=30, n_tokens=200, n_vocab=None)
    assert found.B.dtype == torch.float32
    kl = found.about["kl"]
    assert np.mean(kl["after"][:-1]) < np.mean(kl["before"][:-1])
    assert interp.lens(model, [[1, 2, 3]], kind="tuned", lens=found).frame["kl"].notna().all()


def test_a_place_that_cannot_keep_is_refused(unchecked: None, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        interp.TunedLens.fit(double("llama"), TEXTS, **SMALL, keep=tmp_path / "file")
    with pytest.raises(InputError, match="ids 0 to 49"):
        interp.TunedLens.fit(double("llama"), [[1, 2, 3], [4, 5, 99]], **SMALL)
