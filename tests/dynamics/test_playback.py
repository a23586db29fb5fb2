"""A playback holds what the models themselves say of a row, and the numbers that `emergence` gives."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

import interp
from interp.dynamics import Playback, Recipe, emergence, play, playable, playback, train
from interp.dynamics.base import Optimizer
from interp.dynamics.induction import TiledBlocks, attention_only
from interp.dynamics.reversal import ReversedRows
from interp.errors import InputError, StorageError
from interp.model.config import ModelConfig
from interp.model.transformer import HookedTransformer
from interp.runs.store import RunStore
from interp.text import Tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")
DATA = TiledBlocks(d_vocab=12, length=24, periods=(3, 5))
TINY = Recipe("tiny", attention_only(2, DATA, d_model=8, n_heads=2), DATA, 4, "", Optimizer(batch=4, warm_up=2))


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory):
    return train(TINY, out=tmp_path_factory.mktemp("trained") / "tiny", seed=0)


@pytest.fixture(scope="module")
def found(trained) -> Playback:
    return playback(trained, n=8)


def two_stacks() -> dict[int, HookedTransformer]:
    config = interp.dynamics.recipe("reversal").config
    return {step: HookedTransformer(config, seed=step) for step in (0, 1)}


def decoder(**changes) -> HookedTransformer:
    options = {"n_layers": 2, "d_model": 8, "n_heads": 2, "d_vocab": 12, "n_ctx": 16, "d_mlp": 8} | changes
    return HookedTransformer(ModelConfig.decoder_only(**options), seed=1)


def test_attention_and_lens_are_those_of_each_checkpoint(trained, found) -> None:
    row = torch.tensor([found.about["ids"]])
    for at, step in enumerate(found.steps):
        logits, cache = trained.load(step).run_with_cache(row[:, :-1])
        for layer in range(2):
            pattern = cache["pattern", layer][0]
            assert np.allclose(found.patterns["attn"][at, layer], pattern, atol=1e-3)
            assert np.allclose(found.pattern(step, f"{layer}.1"), pattern[1], atol=1e-3)
        own = logits[0].softmax(-1)
        assert np.allclose(found.lens.next_prob[at, -1], own.gather(-1, row[0, 1:, None])[:, 0], atol=1e-6)
        assert (found.lens.top[at, -1, :, 0] == own.argmax(-1).numpy()).all()
        lens = interp.lens(trained.load(step), row[:, :-1], k=3).tokens
        first = lens[(lens["layer"] == 1) & (lens["rank"] == 2)].sort_values("pos")
        assert np.allclose(first["prob"], found.lens.prob[at, 1, :, 1], atol=1e-5)


def test_scores_and_losses_are_those_of_emergence(trained, found) -> None:
    grown = emergence(trained, n=8, pairs=None)
    for kind in found.kinds:
        layer, head = (int(one) for one in grown.about["best"][kind].split("."))
        assert np.allclose(found.heads[found.kinds.index(kind), :, layer, head], grown.series(kind, "best"), atol=1e-5)
        summed = np.nansum(found.heads[found.kinds.index(kind)], axis=(1, 2))
        assert np.allclose(summed, grown.series(kind, "sum"), atol=1e-5)
    of = found.losses.set_index(["group", "step"])["value"]
    assert np.allclose(of["repeat"], grown.series("loss", "repeat"), atol=1e-6)
    assert found.about["training"]["hash"] == grown.about["training"]["hash"]


def test_what_is_saved_is_read_again_and_a_store_holds_it(found, tmp_path) -> None:
    run = RunStore(tmp_path).save(found, spec={}, title="played")
    again = RunStore(tmp_path).open(run.id).results()
    assert run.info.kind == "playback" and repr(again) == repr(found)
    assert (again.patterns["attn"] == found.patterns["attn"]).all() and again.patterns["attn"].dtype == np.float16
    assert (again.lens.top == found.lens.top).all() and np.array_equal(again.heads, found.heads, equal_nan=True)
    assert again.about == found.about and again.losses.equals(found.losses)
    assert again.read(found.steps[-1]).equals(found.read(found.steps[-1]))


def test_a_damaged_or_changed_folder_is_refused(found, tmp_path) -> None:
    folder = found.save(tmp_path / "one")
    (folder / "playback.safetensors").write_bytes(b"nothing")
    with pytest.raises(StorageError, match="Cannot read the playback"):
        Playback.load(folder)
    fewer = dataclasses.replace(found, about={**found.about})
    fewer.about["steps"] = found.steps[:-1]
    with pytest.raises(StorageError, match="do not fit the steps"):
        Playback.load(fewer.save(tmp_path / "two"))
    with pytest.raises(StorageError, match="holds no playback"):
        Playback.load(emergence_folder(tmp_path))


def emergence_folder(path):
    (path / "other").mkdir()
    (path / "other" / "about.json").write_text('{"kind": "emergence", "format": 1, "about": {}}')
    return path / "other"


def test_a_row_of_ones_own_is_shown_and_scored_where_nothing_else_is_given() -> None:
    given = {0: decoder(), 5: decoder()}
    found = playback(given, [1, 2, 3, 1, 2, 3])
    assert found.about["tokens"] == ["1", "2", "3", "1", "2"] and found.about["following"][-1] == "3"
    assert found.about["n"] == 1 and found.kinds == ["previous_token", "duplicate_token", "induction"]
    pattern = given[0].run_with_cache(torch.tensor([[1, 2, 3, 1, 2]]))[1]["pattern", 0][0]
    expected = float(torch.stack([pattern[1, 3, 1], pattern[1, 4, 2]]).mean())
    assert found.heads[2, 0, 0, 1] == pytest.approx(expected, abs=1e-6)
    assert playback(given, [1, 2, 3, 4, 5, 6]).kinds == ["previous_token"]  # nothing repeats


def test_a_row_can_be_a_text() -> None:
    words = ["<s>", "?", "the", "cat", "sat", "on", "mat"]
    backend = Backend(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    model = decoder()
    model.tokenizer = Tokenizer(backend, add_bos=False, bos_id=0, eos_id=None, pad_id=None, unk_id=1)
    found = playback({0: model, 1: model}, "the cat sat on the mat")
    assert found.about["tokens"] == ["the", "cat", "sat", "on", "the"] and found.about["following"][-1] == "mat"
    assert set(found.read(1)["likeliest"]) <= {*words, *map(str, range(len(words), 12))}


def test_of_all_kinds_those_known_by_a_pattern_can_be_played() -> None:
    assert playable(["induction", "name_mover", "mirror"]) == ["induction", "mirror"]
    assert playable(None) is None and playable(["name_mover"]) is None


def test_an_encoder_decoder_is_played_with_its_cross_attention() -> None:
    both, source = two_stacks(), [4, 5, 6, 7]
    row = [0, 7, 6, 6, 4]
    found = playback(both, row, source=source)
    assert set(found.patterns) == {"encoder.attn", "decoder.attn", "decoder.cross_attn"}
    assert found.kinds == ["source_token"] and found.about["scored"] == "decoder.cross_attn"
    _, cache = both[1].run_with_cache(torch.tensor([source]), decoder_input=torch.tensor([row[:-1]]))
    assert np.allclose(
        found.pattern(1, "decoder.cross_attn.0.2"), cache["decoder.cross_attn.pattern.0"][0, 2], atol=1e-3
    )
    logits = both[1](torch.tensor([source]), decoder_input=torch.tensor([row[:-1]]))[0].softmax(-1)
    assert found.lens.next_prob[1, -1, 0] == pytest.approx(float(logits[0, 7]), abs=1e-6)
    drawn = ReversedRows().draw(4, torch.Generator().manual_seed(0))
    assert drawn.source is not None
    whole = playback(both, drawn.tokens[0], source=drawn.source[0], kinds=["mirror"])
    assert whole.kinds == ["mirror"] and whole.heads.shape == (1, 2, 1, 4)


def test_more_checkpoints_than_can_be_shown_are_thinned_with_both_ends(monkeypatch) -> None:
    monkeypatch.setattr(play, "MAX_STEPS", 5)
    model = decoder(n_layers=1)
    found = playback(dict.fromkeys(range(100), model), [1, 2, 3])
    assert found.steps == [0, 25, 50, 74, 99] and found.about["n_checkpoints"] == 100
    assert playback({0: model, 3: model, 9: model}, [1, 2, 3], steps=[9, 0]).steps == [0, 9]


@pytest.mark.parametrize(
    ("checkpoints", "given", "said"),
    [
        ({0: decoder(), 1: decoder()}, {}, "come without data. Give row"),
        ({0: decoder(), 1: decoder()}, {"row": [1, 2]}, "The row has 2 tokens. Give 3 to 17"),
        ({0: decoder(n_ctx=512), 1: decoder(n_ctx=512)}, {"row": [1] * 130}, "The row has 130 tokens. Give 3 to 129"),
        ({0: decoder(), 1: decoder()}, {"row": [1, 2, 99]}, "outside the vocabulary, 0 to 11"),
        ({0: decoder(), 1: decoder()}, {"row": [0.5, 1.0, 2.0]}, "Give a text, or one row of token ids"),
        ({0: decoder(), 1: decoder()}, {"row": [1, 2, 3], "source": [1]}, "has no encoder to read source"),
        ({0: decoder(), 1: decoder()}, {"row": [1, 2, 3], "steps": [0, 7]}, "steps names 7. There are 0, 1"),
        ({0: decoder(), 1: decoder()}, {"row": [1, 2, 3], "steps": [1]}, "names 1 checkpoints. Give 2 to 64"),
        ({0: decoder(), 1: decoder()}, {"row": [1, 2, 3], "kinds": "induction"}, "No row has what induction heads"),
        ({0: decoder(), 1: decoder()}, {"row": [1, 2, 3], "kinds": "name_mover"}, "known by no pattern"),
        ({0: decoder(), 1: decoder()}, {"row": [1, 2, 3], "k": 0}, "k is 0"),
        ({0: decoder()}, {"row": [1, 2, 3]}, "at least two checkpoints"),
        ({0: decoder(), 1: decoder(n_heads=4)}, {"row": [1, 2, 3]}, "not checkpoints of one training"),
        (two_stacks(), {"row": [1, 2, 3]}, "needs source="),
        (two_stacks(), {"row": [0, 2, 3], "source": [3, 2], "kinds": "induction"}, "are of one stack"),
    ],
)  # fmt: skip
def test_what_cannot_be_played_is_refused_with_the_reason(checkpoints, given, said) -> None:
    with pytest.raises(InputError, match=said):
        playback(checkpoints, **given)


def test_encoders_and_attention_that_is_too_much_are_refused() -> None:
    config = ModelConfig.encoder_only(n_layers=1, d_model=8, n_heads=2, d_vocab=12, n_ctx=16, d_mlp=8)
    encoders = {step: HookedTransformer(config, seed=step) for step in (0, 1)}
    with pytest.raises(InputError, match="predicts no next token"):
        playback(encoders, [1, 2, 3])
    wide = decoder(n_layers=4, d_model=64, n_heads=32, n_ctx=128)
    with pytest.raises(InputError, match=r"weights, more than 12,000,000\. Give fewer steps="):
        playback(dict.fromkeys(range(10), wide), [1] * 129)


def test_unknown_steps_and_heads_are_said_with_those_there_are(found) -> None:
    with pytest.raises(InputError, match=r"no checkpoint of step 99\. The nearest is 4"):
        found.read(99)
    with pytest.raises(InputError, match=r"no head 2\.0.*attn: 2 layers of up to 2"):
        found.pattern(0, "2.0")
    assert {"best head", "at first", "at last"} <= set(found.summary().columns) and "8 rows" not in str(found)
    assert "4 rows" in str(found) and found.to_records()["heads"][0]["kind"] == "previous_token"
