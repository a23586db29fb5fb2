"""Encoders and encoder-decoders against the transformers library, tensor by tensor.

Every model is tiny and random, gains and biases too, so that none can be lost unseen. Padded rows are compared with
the same rows alone: the library counts the positions of some families through padding, ours never does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import interp
from interp.errors import CheckpointError, InputError, UnsupportedModelError
from interp.model.passes import prepare
from interp.model.taps import NO_TAPS
from interp.model.transformer import HookedTransformer

TOLERANCE = 1e-4
VOCABULARY = 61
FIRST_WORD = 6  # ids below are padding and the like: RoBERTa and MPNet take positions from them

BERT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}
DISTILBERT = {
    "vocab_size": VOCABULARY,
    "dim": 32,
    "n_layers": 3,
    "n_heads": 4,
    "hidden_dim": 48,
    "max_position_embeddings": 40,
}
T5 = {"vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
BART = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 40,
    "max_position_embeddings": 40,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "forced_eos_token_id": 2,
    "decoder_start_token_id": 2,
}


@dataclass(frozen=True)
class Case:
    """One tiny model of the library: its head class, its config class and what the config says."""

    family: str
    head: str
    config: str
    values: dict[str, Any] = field(default_factory=dict)
    own_logits: bool = False  # give the logits a matrix of their own after all (T5 1.1)

    def live(self, head: str | None = None) -> Any:
        import transformers

        torch.manual_seed(0)
        config = getattr(transformers, self.config)(**self.values)
        model = getattr(transformers, head or self.head)._from_config(config, attn_implementation="eager").eval()
        if self.own_logits:
            model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight))
        for name, parameter in model.named_parameters():
            gain = "norm" in name.lower() and name.endswith("weight")
            if parameter.requires_grad:
                parameter.data.normal_(1.0 if gain else 0.0, 0.3 if parameter.ndim == 1 else 0.2)
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias.normal_()
        return model

    @property
    def two_stacks(self) -> bool:
        return self.family in ("t5", "mt5", "bart", "marian", "pegasus")


def _bert(family: str, name: str, **values: Any) -> Case:
    return Case(family, f"{name}ForMaskedLM", f"{name}Config", {**BERT, **values})


def _t5(own_logits: bool = False, **values: Any) -> Case:
    return Case("t5", "T5ForConditionalGeneration", "T5Config", {**T5, **values}, own_logits)


def _bart(family: str, name: str, head: str = "ForConditionalGeneration", **values: Any) -> Case:
    return Case(family, f"{name}{head}", f"{name}Config", {**BART, **values})


QUICK = {
    "bert": _bert("bert", "Bert"),
    "roberta": _bert("roberta", "Roberta"),
    "distilbert": Case("distilbert", "DistilBertForMaskedLM", "DistilBertConfig", DISTILBERT),
    "albert": _bert("albert", "Albert", embedding_size=16),
    "electra": _bert("electra", "Electra", embedding_size=16),
    "mpnet": _bert("mpnet", "MPNet"),
    "t5": _t5(),
    "bart": _bart("bart", "Bart"),
    "marian": _bart("marian", "Marian", "MTModel", scale_embedding=True),
    "pegasus": _bart("pegasus", "Pegasus", scale_embedding=True),
}
MORE = {
    "bert-pretraining": Case("bert", "BertForPreTraining", "BertConfig", {**BERT, "hidden_act": "relu"}),
    "bert-wide-eps": _bert("bert", "Bert", layer_norm_eps=1e-3, hidden_act="gelu_new", type_vocab_size=1),
    "bert-untied": _bert("bert", "Bert", tie_word_embeddings=False),
    "roberta-padding-3": _bert("roberta", "Roberta", pad_token_id=3, type_vocab_size=1, hidden_act="relu"),
    "roberta-untied": _bert("roberta", "Roberta", tie_word_embeddings=False),
    "xlm-roberta": _bert("roberta", "XLMRoberta", layer_norm_eps=1e-5),
    "camembert": _bert("roberta", "Camembert", type_vocab_size=1),
    "distilbert-relu": Case(
        "distilbert", "DistilBertForMaskedLM", "DistilBertConfig", {**DISTILBERT, "activation": "relu", "n_heads": 2}
    ),
    "distilbert-sinusoidal": Case(
        "distilbert", "DistilBertForMaskedLM", "DistilBertConfig", {**DISTILBERT, "sinusoidal_pos_embds": True}
    ),
    "albert-as-wide": _bert("albert", "Albert", embedding_size=32, hidden_act="gelu"),
    "albert-deep": _bert("albert", "Albert", embedding_size=64, num_hidden_layers=6),
    "electra-as-wide": _bert("electra", "Electra", embedding_size=32, hidden_act="relu"),
    "electra-untied": _bert("electra", "Electra", embedding_size=16, tie_word_embeddings=False),
    "mpnet-relu": _bert("mpnet", "MPNet", hidden_act="relu", num_attention_heads=2),
    "t5-1.1": _t5(True, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    "t5-1.1-sharing": _t5(feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    "t5-gated-silu": _t5(feed_forward_proj="gated-silu", num_decoder_layers=3, d_kv=12, layer_norm_epsilon=1e-3),
    "t5-near": _t5(relative_attention_num_buckets=8, relative_attention_max_distance=12, num_decoder_layers=1),
    "mt5": Case("mt5", "MT5ForConditionalGeneration", "MT5Config", T5, True),
    "mt5-tied": Case("mt5", "MT5ForConditionalGeneration", "MT5Config", {**T5, "feed_forward_proj": "relu"}),
    "bart-scaled": _bart("bart", "Bart", scale_embedding=True, activation_function="relu"),
    "bart-untied": _bart("bart", "Bart", tie_word_embeddings=False),
    "marian-plain": _bart("marian", "Marian", "MTModel", activation_function="silu"),
    "pegasus-relu": _bart("pegasus", "Pegasus", activation_function="relu", encoder_layers=1),
}
CASES = QUICK | MORE
ALL = [*QUICK, *(pytest.param(name, marks=pytest.mark.parity_all) for name in MORE)]
STACKED = [name for name in QUICK if CASES[name].two_stacks]
ALL_STACKED = [*STACKED, *(pytest.param(n, marks=pytest.mark.parity_all) for n in MORE if CASES[n].two_stacks)]
ENCODERS = [name for name in QUICK if not CASES[name].two_stacks]


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


_kept: dict[str, tuple[Any, HookedTransformer]] = {}


def pair(name: str) -> tuple[Any, HookedTransformer]:
    """A live model of the library, and ours made of it."""
    if name not in _kept:
        live = CASES[name].live()
        _kept[name] = live, interp.load(live)
    return _kept[name]


def words(n_rows: int, n_tokens: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(FIRST_WORD, VOCABULARY, (n_rows, n_tokens), generator=generator)


def theirs(live: Any, source: Tensor, decoder_input: Tensor | None, mask: Tensor | None = None) -> dict[str, Tensor]:
    """The library's logits, hidden states and attention patterns under our names of them."""
    options = {} if decoder_input is None else {"decoder_input_ids": decoder_input}
    out = live(source, attention_mask=mask, output_hidden_states=True, output_attentions=True, **options)
    found = {"logits": out["prediction_logits" if "prediction_logits" in out else "logits"]}
    if decoder_input is None:
        found |= {f"blocks.{i}.attn.hook_pattern": x for i, x in enumerate(out.attentions)}
        return found | _hidden("", out.hidden_states)
    for kind, patterns in (
        ("encoder.blocks.{}.attn", out.encoder_attentions),
        ("decoder.blocks.{}.attn", out.decoder_attentions),
        ("decoder.blocks.{}.cross_attn", out.cross_attentions),
    ):
        found |= {f"{kind.format(i)}.hook_pattern": x for i, x in enumerate(patterns)}
    hidden = _hidden("encoder.", out.encoder_hidden_states) | _hidden("decoder.", out.decoder_hidden_states)
    return found | hidden


def _hidden(stack: str, states: tuple[Tensor, ...]) -> dict[str, Tensor]:
    *entering, last = states
    return {f"{stack}blocks.{i}.hook_resid_pre": x for i, x in enumerate(entering)} | {f"{stack}last": last}


def mine(
    model: HookedTransformer, source: Tensor, decoder_input: Tensor | None, mask: Tensor | None = None
) -> dict[str, Tensor]:
    """Our tensors, and behind each stack its last residual, normed where it is."""
    options = {} if decoder_input is None else {"decoder_input": decoder_input}
    logits, cache = model.run_with_cache(source, attention_mask=mask, **options)
    found = {name: cache[name] for name in cache}
    for name, stack in ((name, model.main if not name else getattr(model, name)) for name in model.cfg.stacks):
        prefix = f"{name}." if name else ""
        last = found[f"{prefix}blocks.{stack.config.n_layers - 1}.hook_resid_post"]
        found[f"{prefix}last"] = stack.finish(last, NO_TAPS)
    return found | {"logits": logits}


def differences(
    name: str, source: Tensor, decoder_input: Tensor | None, mask: Tensor | None = None
) -> dict[str, float]:
    """Tensor -> the largest difference at tokens that are real, of unpadded rows or rows padded on the right."""
    live, model = pair(name)
    ours, wanted = mine(model, source, decoder_input, mask), theirs(live, source, decoder_input, mask)
    found = {}
    for key, x in wanted.items():
        assert ours[key].shape == x.shape, key
        if mask is not None and key.endswith("hook_pattern") and not key.startswith("decoder"):
            keep = mask.bool()[:, None, :, None].expand_as(x)
        elif mask is not None and not key.startswith("decoder") and not (decoder_input is not None and key == "logits"):
            keep = mask.bool()[..., None].expand_as(x)
        else:
            keep = torch.ones_like(x, dtype=torch.bool)
        found[key] = float((ours[key] - x)[keep].abs().max())
    return found


def inputs(name: str, n_rows: int = 3) -> tuple[Tensor, Tensor | None]:
    return words(n_rows, 17), words(n_rows, 9, seed=1) if CASES[name].two_stacks else None


@pytest.mark.parametrize("name", ALL)
def test_logits_hidden_states_and_patterns_agree(name: str) -> None:
    for n_rows in (1, 3):
        found = differences(name, *inputs(name, n_rows))
        assert len(found) >= 5 and max(found.values()) < TOLERANCE, found


@pytest.mark.parametrize("name", ALL)
def test_rows_padded_on_the_right_agree_with_the_library(name: str) -> None:
    found = right_padded_differences(name)
    assert max(found.values()) < TOLERANCE, found


def right_padded_differences(name: str) -> dict[str, float]:
    source, decoder_input = inputs(name)
    mask = torch.ones_like(source)
    for row, real in enumerate((17, 11, 4)):
        mask[row, real:] = 0
    source = source.masked_fill(mask == 0, pair(name)[0].config.pad_token_id or 0)
    return differences(name, source, decoder_input, mask)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ALL)
def test_a_padded_row_gives_what_the_library_gives_for_it_alone(name: str, side: str) -> None:
    assert padded_difference(name, side) < TOLERANCE


def padded_difference(name: str, side: str) -> float:
    """The largest difference of logits between padded rows of ours and the library's single rows."""
    live, model = pair(name)
    source, decoder_input = inputs(name)
    lengths = (17, 11, 4)
    padded, mask = torch.full_like(source, 1), torch.zeros_like(source)
    for row, n in enumerate(lengths):
        place = slice(17 - n, 17) if side == "left" else slice(0, n)
        padded[row, place], mask[row, place] = source[row, :n], 1
    ours = mine(model, padded, decoder_input, mask)["logits"]
    worst = 0.0
    for row, n in enumerate(lengths):
        one = None if decoder_input is None else decoder_input[row : row + 1]
        wanted = theirs(live, source[row : row + 1, :n], one)["logits"][0]
        got = ours[row] if decoder_input is not None else ours[row][mask[row].bool()]
        worst = max(worst, float((got - wanted).abs().max()))
    return worst


@pytest.mark.parametrize("name", ALL)
def test_a_saved_folder_gives_the_live_models_logits(name: str, tmp_path: Path) -> None:
    assert folder_difference(name, tmp_path) == 0.0


def folder_difference(name: str, folder: Path) -> float:
    """The largest difference between logits of a live model, which are compared with the library's elsewhere, and of
    the folder that it saved."""
    live, model = pair(name)
    live.save_pretrained(folder)
    source, decoder_input = inputs(name)
    again = mine(interp.load(folder), source, decoder_input)["logits"]
    return float((again - mine(model, source, decoder_input)["logits"]).abs().max())


@pytest.mark.parametrize("name", ALL_STACKED)
def test_a_decoder_that_goes_on_after_stored_keys_gives_the_same(name: str) -> None:
    assert incremental_difference(name) < TOLERANCE


def incremental_difference(name: str) -> float:
    live, model = pair(name)
    source, decoder_input = inputs(name)
    assert decoder_input is not None
    parts, past = [], None
    for pos in (slice(0, 4), slice(4, 5), slice(5, 9)):
        job = prepare(model, source, decoder_input=decoder_input[:, pos], past_kv=past)
        job.keep_keys = True
        parts.append(model.run(job))
        past = job.keys
    return float((torch.cat(parts, dim=1) - theirs(live, source, decoder_input)["logits"]).abs().max())


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_without_head_has_residuals_and_heads_but_no_logits(name: str, tmp_path: Path) -> None:
    head = CASES[name].head.replace("ForMaskedLM", "Model")
    bare = CASES[name].live(head)
    bare.save_pretrained(tmp_path)
    source = words(2, 9)
    wanted = bare(source, output_hidden_states=True, output_attentions=True)
    for model in (interp.load(bare), interp.load(tmp_path)):
        output, cache = model.run_with_cache(source, return_type=None)
        assert output is None
        for layer, pattern in enumerate(wanted.attentions):
            assert float((cache[f"blocks.{layer}.attn.hook_pattern"] - pattern).abs().max()) < TOLERANCE
            assert (
                float((cache[f"blocks.{layer}.hook_resid_post"] - wanted.hidden_states[layer + 1]).abs().max())
                < TOLERANCE
            )
        last = model(source, stop_at_layer=model.cfg.n_layers)
        assert float((last - wanted.last_hidden_state).abs().max()) < TOLERANCE
        assert "hook_unembed" not in model.sites and not model.cfg.has_unembed
        for refused in (lambda m: m(source), lambda m: m.run_with_cache(source), lambda m: m.W_U, lambda m: m.b_U):
            with pytest.raises(InputError, match=r"no head that predicts tokens.*stop_at_layer=3"):
                refused(model)


def test_electras_discriminator_is_an_encoder_without_logits() -> None:
    live = CASES["electra"].live("ElectraForPreTraining")
    assert not interp.load(live).cfg.has_unembed


def test_alberts_layers_share_one_tensor(tmp_path: Path) -> None:
    live, model = pair("albert")
    live.save_pretrained(tmp_path)
    for one in (model, interp.load(tmp_path), interp.load(tmp_path, dtype="float64")):
        pointers = {block.attn.q.weight.data_ptr() for block in one.blocks}
        assert len(pointers) == 1 and len(one.blocks) == 3


def test_a_bare_tied_bart_has_logits_by_its_embedding() -> None:
    live = CASES["bart"].live("BartModel")
    model = interp.load(live)
    source, decoder_input = inputs("bart")
    wanted = live(source, decoder_input_ids=decoder_input).last_hidden_state @ live.shared.weight.T
    assert float((model(source, decoder_input=decoder_input) - wanted).abs().max()) < TOLERANCE


def test_t5_reads_what_transformers_4_wrote(tmp_path: Path) -> None:
    import json

    live = CASES["t5-1.1"].live()
    live.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for name in ("scale_decoder_outputs", "dense_act_fn", "is_gated_act"):
        del config[name]
    (tmp_path / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False, "n_positions": 512}))
    source, decoder_input = inputs("t5")
    got = interp.load(tmp_path)(source, decoder_input=decoder_input)
    assert float((got - theirs(live, source, decoder_input)["logits"]).abs().max()) < TOLERANCE


REFUSED = [
    ("bert", "position_embedding_type", "relative_key"),
    ("bert", "is_decoder", True),
    ("bert", "add_cross_attention", True),
    ("bert", "hidden_act", "gelu_10"),
    ("roberta", "is_decoder", True),
    ("distilbert", "is_decoder", True),
    ("albert", "num_hidden_groups", 3),
    ("albert", "inner_group_num", 2),
    ("electra", "position_embedding_type", "relative_key_query"),
    ("mpnet", "relative_attention_num_buckets", 16),
    ("t5", "is_decoder", True),
    ("t5", "is_encoder_decoder", False),
    ("t5", "feed_forward_proj", "mixture-gelu"),
    ("t5", "dense_act_fn", "silu"),
    ("bart", "normalize_before", True),
    ("bart", "normalize_embedding", False),
    ("bart", "add_final_layer_norm", True),
    ("bart", "is_decoder", True),
    ("marian", "share_encoder_decoder_embeddings", False),
    ("marian", "decoder_vocab_size", 7),
    ("pegasus", "normalize_before", False),
    ("pegasus", "static_position_embeddings", False),
    *((name, "a_new_idea", 3) for name in QUICK),
]


@pytest.mark.parametrize(("name", "entry", "value"), REFUSED)
def test_what_changes_the_mathematics_is_refused_by_name(name: str, entry: str, value: Any) -> None:
    from interp.families.base import family_for_hf

    hf = {**pair(name)[0].config.to_dict(), entry: value}
    with pytest.raises(UnsupportedModelError, match=f"{entry}="):
        family_for_hf(hf, "config.json").config_from_hf(hf)


@pytest.mark.parametrize("name", ["bert", "bart"])
def test_copies_that_should_be_tied_and_differ_are_refused(name: str) -> None:
    live, _ = pair(name)
    stored = {key: tensor.clone() for key, tensor in live.state_dict().items()}
    copy = {"bert": "cls.predictions.decoder.bias", "bart": "model.encoder.embed_tokens.weight"}[name]
    stored[copy] += 1
    from interp.families.base import family_for_hf

    family = family_for_hf(live.config.to_dict(), "it")
    config = family.config_from_hf(live.config.to_dict())
    with pytest.raises(CheckpointError, match="twice"):
        family.weights_from_hf(stored, config, source="it")


@pytest.mark.parametrize("both_ways", [True, False])
def test_distances_far_beyond_any_text_here_fall_into_the_librarys_buckets(both_ways: bool) -> None:
    from transformers.models.t5.modeling_t5 import T5Attention

    from interp.model.attention import distance_buckets

    distances = torch.arange(-3000, 3000)[None, None]
    for n_buckets, furthest in ((32, 128), (8, 12), (64, 1000)):
        wanted = T5Attention._relative_position_bucket(distances, both_ways, n_buckets, furthest)
        assert torch.equal(distance_buckets(distances, n_buckets, furthest, both_ways=both_ways), wanted)
