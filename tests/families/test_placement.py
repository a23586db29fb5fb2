"""A model divided over memory and disk gives the numbers of the undivided one, or refuses."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp import planted
from interp.errors import InputError, StorageError
from interp.families import converted
from interp.families import placement as placement_module
from interp.families.load import load
from interp.model.identity import model_hash
from interp.model.placed import DISK, PlacedTransformer, place
from interp.model.transformer import HookedTransformer

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
TEXT = torch.arange(3, 13)[None] % 11 + 2


@pytest.fixture(scope="module")
def circuit() -> planted.Planted:
    return planted.make("ioi")


@pytest.fixture(scope="module")
def rows(circuit: planted.Planted) -> torch.Tensor:
    return torch.tensor([list(row[:8]) for row in next(iter(circuit.pairs.values())).clean[:4]])


def divided(model: HookedTransformer, folder: Path, **options: Any) -> PlacedTransformer:
    """The same weights, every second module's on disk."""
    names = [name for name, _ in model.named_parameters()]
    where = {name: DISK if i % 2 else "cpu" for i, name in enumerate(names)}
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    return place(model.cfg, weights, model.tokenizer, where=where, dtype=model.dtype, device=CPU, folder=folder)


def same(one: Any, other: Any) -> None:
    np.testing.assert_allclose(np.asarray(one), np.asarray(other), atol=1e-5, rtol=0, equal_nan=True)


# ---- from a checkpoint, under a limit ----


@pytest.fixture
def checkpoint(tiny_llama: Callable[..., Any], tmp_path: Path) -> Path:
    """Six layers in hub layout; float32, 0.97 MB."""
    tiny_llama(num_hidden_layers=6, tie_word_embeddings=True).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_under_a_limit_the_first_blocks_stay_and_the_rest_lies_on_disk(checkpoint: Path, tmp_path: Path):
    whole = load(checkpoint)
    model = load(checkpoint, placement="auto", max_memory={"cpu": "500KB"}, offload_folder=tmp_path / "off")
    assert isinstance(model, PlacedTransformer)
    places = [model.placement[f"decoder.blocks.{layer}.mlp.up.weight"] for layer in range(6)]
    assert places[0] == "cpu" and places[-1] == DISK and places == sorted(places)
    held = sum(weight.numel() * 4 for name, weight in model.stored_weights() if model.placement[name] == "cpu")
    on_disk = sum(file.stat().st_size for file in (tmp_path / "off").rglob("*.bin"))
    total = sum(weight.numel() * 4 for weight in whole.parameters())
    assert 0 < held <= 500_000 and held + on_disk == total
    assert torch.equal(model(TEXT), whole(TEXT))
    assert model_hash(model) == model_hash(whole)
    assert not list(model.buffers()) and not model._forward_hooks and not model._forward_pre_hooks


def test_a_model_that_fits_is_an_ordinary_one(checkpoint: Path):
    model = load(checkpoint, placement="auto", max_memory={"cpu": "100MB"})
    assert type(model) is HookedTransformer and torch.equal(model(TEXT), load(checkpoint)(TEXT))


def test_its_files_go_with_the_model(checkpoint: Path, tmp_path: Path):
    model = load(checkpoint, placement="auto", max_memory={"cpu": 0}, offload_folder=tmp_path / "off")
    assert set(model.placement.values()) == {DISK} and list((tmp_path / "off").iterdir())  # type: ignore[attr-defined]
    logits = model(TEXT)
    del model
    gc.collect()
    assert not list((tmp_path / "off").iterdir()) and torch.equal(logits, load(checkpoint)(TEXT))


def test_half_precision_is_kept_on_disk(checkpoint: Path, tmp_path: Path):
    model = load(checkpoint, dtype="bfloat16", placement="auto", max_memory={"cpu": 0}, offload_folder=tmp_path)
    assert model.dtype == torch.bfloat16
    assert torch.equal(model(TEXT), load(checkpoint, dtype="bfloat16")(TEXT))


# ---- the same numbers ----


def test_every_site_and_gradient_is_that_of_the_undivided_model(
    circuit: planted.Planted, rows: torch.Tensor, tmp_path: Path
):
    model = divided(circuit.model, tmp_path)
    for options in ({}, {"return_type": "loss", "incl_bwd": True}):
        (_, mine), (_, theirs) = (one.run_with_cache(rows, **options) for one in (model, circuit.model))
        assert list(mine) == list(theirs)
        for site in theirs:
            same(mine[site].detach(), theirs[site].detach())
    for site in ("z.0", "resid_post.1"):
        same(mine.grad(site), theirs.grad(site))
    first = model(rows, stop_at_layer=1)
    same(model(first, start_at_layer=1).detach(), circuit.model(rows).detach())


def _both(circuit: planted.Planted, folder: Path, ask: Callable[[HookedTransformer], Any]) -> tuple[Any, Any]:
    with torch.no_grad():
        return ask(divided(circuit.model, folder)), ask(circuit.model)


@pytest.mark.parametrize(
    "site, over",
    [
        ("z", ("layer", "head")),
        pytest.param("resid_pre", ("layer", "pos"), marks=pytest.mark.slow),
        pytest.param("q", ("layer", "head"), marks=pytest.mark.slow),
    ],
)
def test_patching_is_the_same(circuit: planted.Planted, tmp_path: Path, site: str, over: tuple[str, ...]):
    pairs = next(iter(circuit.pairs.values()))
    mine, theirs = _both(circuit, tmp_path, lambda model: interp.patch(model, pairs, site, over=over))
    assert theirs.values.size and np.abs(theirs.values).max() > 0.1
    same(mine.values, theirs.values)


@pytest.mark.slow
def test_ablation_attribution_and_paths_are_the_same(circuit: planted.Planted, rows: torch.Tensor, tmp_path: Path):
    pairs = next(iter(circuit.pairs.values()))
    asked: list[Callable[[HookedTransformer], Any]] = [
        lambda model: interp.ablate(model, pairs),
        lambda model: interp.ablate(model, pairs, how="mean", reference=rows, mean_axes=("prompt", "pos")),
        lambda model: interp.path_patch(model, pairs, "heads", "logits"),
    ]
    for ask in asked:
        mine, theirs = _both(circuit, tmp_path, ask)
        same(mine.values, theirs.values)
    mine, theirs = (interp.attribute(one, pairs, "z") for one in (divided(circuit.model, tmp_path), circuit.model))
    same(mine.values, theirs.values)


def test_lenses_and_logits_split_are_the_same(circuit: planted.Planted, rows: torch.Tensor, tmp_path: Path):
    pairs = next(iter(circuit.pairs.values()))
    mine, theirs = _both(circuit, tmp_path, lambda model: interp.lens(model, rows[:2], k=3).to_frame())
    assert len(theirs) and list(mine.columns) == list(theirs.columns)
    same(mine.select_dtypes("number").astype(float), theirs.select_dtypes("number").astype(float))
    mine, theirs = _both(circuit, tmp_path, lambda model: interp.logit_attribution(model, pairs).to_frame())
    same(mine.select_dtypes("number").astype(float), theirs.select_dtypes("number").astype(float))


def test_what_reads_weights_alone_gets_them(circuit: planted.Planted, tmp_path: Path):
    for name in ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_O", "W_E", "W_U", "b_U"):
        mine, theirs = _both(circuit, tmp_path, lambda model, name=name: getattr(model, name))
        assert torch.equal(mine, theirs), name
    mine, theirs = _both(circuit, tmp_path, lambda model: interp.composition(model, "K", n_random=20).values)
    same(mine, theirs)


def test_the_search_for_heads_finds_the_same_with_the_same_figures(circuit: planted.Planted, tmp_path: Path):
    made = planted.make("induction")

    def search(model: HookedTransformer) -> Any:
        return interp.find_heads(model, "induction", n=8).to_frame()

    mine, theirs = _both(made, tmp_path, search)
    assert theirs["effect"].notna().any() and list(mine["verdict"]) == list(theirs["verdict"])
    same(mine.select_dtypes("number").astype(float), theirs.select_dtypes("number").astype(float))


def test_two_stacks_and_shared_layers_are_placed_too(tmp_path: Path):
    from transformers import AlbertConfig, AlbertForMaskedLM, T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    small = {"d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 4, "vocab_size": 30}
    t5 = T5ForConditionalGeneration(T5Config(**small, decoder_start_token_id=0)).eval()
    model = load(t5, placement="auto", max_memory={"cpu": 0}, offload_folder=tmp_path)
    same(model(TEXT, decoder_input=TEXT).detach(), load(t5)(TEXT, decoder_input=TEXT).detach())
    sizes = {"embedding_size": 8, "hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}
    albert = AlbertForMaskedLM(AlbertConfig(**sizes, num_hidden_layers=3, vocab_size=30)).eval()
    model = load(albert, placement="auto", max_memory={"cpu": 0}, offload_folder=tmp_path)
    same(model(TEXT).detach(), load(albert)(TEXT).detach())
    assert model_hash(model) == model_hash(load(albert))


# ---- what is refused ----


def test_placed_weights_are_no_parameters(circuit: planted.Planted, tmp_path: Path):
    model = divided(circuit.model, tmp_path)
    asks: list[Callable[[], Any]] = [
        lambda: list(model.parameters()),
        lambda: model.state_dict(),
        lambda: model.to("cpu"),
        lambda: model.half(),
        lambda: interp.fold_norms(model),
        lambda: model.to_hf_state_dict(),
        lambda: copy.deepcopy(model),
        lambda: pickle.dumps(model),
    ]
    for ask in asks:
        with pytest.raises(InputError, match="placed on several devices or on disk"):
            ask()


def test_placed_weights_are_not_edited_in_silence(circuit: planted.Planted, rows: torch.Tensor, tmp_path: Path):
    model = divided(circuit.model, tmp_path)
    name = next(name for name, where in model.placement.items() if where == DISK and name.endswith("weight"))
    owner = model.get_submodule(name.rpartition(".")[0])
    before = model(rows)
    for value in (torch.zeros(3), torch.nn.Parameter(torch.zeros(3))):
        with pytest.raises(InputError, match="read-only"):
            owner.weight = value
    with torch.no_grad():
        owner.weight.zero_()
    with pytest.raises(InputError, match=rf"{name} was edited in place.*read-only"):
        model(rows)
    assert torch.equal(model(rows), before)


def test_a_weight_whose_file_is_gone_or_cut_is_named(circuit: planted.Planted, rows: torch.Tensor, tmp_path: Path):
    model = divided(circuit.model, tmp_path)
    model(rows)
    files = sorted(tmp_path.rglob("*.bin"))
    files[0].write_bytes(files[0].read_bytes()[:-4])
    with pytest.raises(StorageError, match="cut short"):
        model(rows)
    files[0].unlink()
    with pytest.raises(StorageError, match=r"cannot be read: No such file.*Load it again"):
        model(rows)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"placement": "balanced"}, "placement='balanced' is not to be had"),
        ({"max_memory": {"cpu": "1GB"}}, 'max_memory=.*placement="auto" asks for'),
        ({"offload_folder": "x"}, 'offload_folder=.*placement="auto" asks for'),
        ({"placement": "auto", "device": "cpu"}, "both say where the weights go"),
        ({"placement": "auto", "offload_folder": 3}, "offload_folder=3 is no path"),
        ({"placement": "auto", "offload_folder": __file__}, "is a file"),
        ({"placement": "auto", "max_memory": {}}, "limits nothing"),
        ({"placement": "auto", "max_memory": {"gpu": "1GB"}}, "names 'gpu'; this machine has"),
        ({"placement": "auto", "max_memory": {99: "1GB"}}, "names 99; this machine has"),
        ({"placement": "auto", "max_memory": {True: "1GB"}}, "names True; this machine has"),
        ({"placement": "auto", "max_memory": {"cpu": "much"}}, "is no size"),
        ({"placement": "auto", "max_memory": {"cpu": -1}}, "is no size"),
        ({"placement": "auto", "max_memory": {"cpu": 1.5}}, "is no size"),
        ({"placement": "auto", "max_memory": {"cpu": "500KB"}}, r"MB of weights do not fit.*cpu.*offload_folder="),
    ],
)
def test_bad_places_are_refused_with_what_to_do(checkpoint: Path, options: dict[str, Any], said: str):
    with pytest.raises(InputError, match=said):
        load(checkpoint, **options)


def test_without_accelerate_its_install_line_is_given(checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(placement_module, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install accelerate"):
        load(checkpoint, placement="auto")


def test_a_folder_without_space_or_rights_is_refused(circuit: planted.Planted, tmp_path: Path, monkeypatch: Any):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Cannot use offload_folder"):
        divided(circuit.model, tmp_path / "file" / "below")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: os.terminal_size((0, 0)) and _Usage())
    with pytest.raises(StorageError, match="MB free"):
        divided(circuit.model, tmp_path)


class _Usage:
    free = 10


# ---- memory, measured ----

_MEASURE = """
import json, sys, torch, interp
torch.set_num_threads(1); torch.set_grad_enabled(False)
def status(what):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(what)) / 1000
before = status("VmRSS:")
options = {} if sys.argv[1] == "whole" else dict(
    placement="auto", max_memory={"cpu": "200MB"}, offload_folder=sys.argv[2])
model = interp.load("smollm2-135m", **options)
model("warm up")
open("/proc/self/clear_refs", "w").write("5")  # the peak is measured from here
pairs = interp.PromptPairs.from_text(model, clean="The capital of France is", corrupt="The capital of Spain is",
                                     answer=" Paris", foil=" Madrid")
logits = model("The capital of France is")[0, -1]
effects = interp.patch(model, pairs, "z", over=("layer", "head"))
zero = interp.ablate(model, pairs, ["23.4", "16.0"])
print(json.dumps({"peak": status("VmHWM:") - before, "top": logits.topk(5).values.tolist(),
                  "effects": effects.values.values.ravel().tolist(), "zero": zero.values.values.ravel().tolist()}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read from Linux's /proc")
def test_smollm2_in_200_mb_gives_the_same_numbers_in_less_memory(tmp_path: Path):
    import json

    environment = {**os.environ, "PYTHONPATH": str(Path(interp.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    load("smollm2-135m")
    converted.wait_for_writes()  # so that neither converts
    found = {}
    for how in ("whole", "placed"):
        command = [sys.executable, "-c", _MEASURE, how, str(tmp_path)]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
        assert run.returncode == 0, run.stderr
        found[how] = json.loads(run.stdout)
    for name in ("top", "effects", "zero"):
        same(found["placed"][name], found["whole"][name])
    print({how: round(one["peak"]) for how, one in found.items()})
    assert found["whole"]["peak"] - found["placed"]["peak"] > 250  # of 354 MB that lie on disk
    assert not list(tmp_path.glob("interp-weights-*"))
