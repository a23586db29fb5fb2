"""`interp patch`: pairs from options or a table, the grid as asked, and the same effects as `interp.patch`."""

from __future__ import annotations

import inspect
import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

import interp
from interp.cli.patch import _named, _numbers, patch
from interp.errors import InputError
from interp.model.transformer import HookedTransformer
from interp.runs.store import RunStore
from interp.text import Tokenizer
from tests.browser.serving import tiny_model
from tests.model.conftest import ZOO, randomize

FAKE = """
import interp
from tests.browser.serving import tiny_model
interp.load = tiny_model
"""
NEVER = "\nimport interp\ndef never(*_, **__): raise SystemExit('loaded')\ninterp.load = never\n"
TEXTS = {"clean": "the cat sat on", "corrupt": "the mat sat on", "answer": "a", "foil": "cat"}
PAIR = [part for name, text in TEXTS.items() for part in (f"--{name}", text)]


def exact(site: str = "resid_pre", *arguments, **options) -> interp.Effects:
    model = tiny_model()
    return interp.patch(model, interp.PromptPairs.from_text(model, **TEXTS), site, *arguments, **options)


def cells(done) -> np.ndarray:
    return np.array([cell["effect"] for cell in json.loads(done.out)["cells"]])


def test_the_defaults_are_those_of_patch():
    ours, theirs = inspect.signature(patch).parameters, inspect.signature(interp.patch).parameters
    for name in ("direction", "window", "metric", "ungroup", "max_bytes"):
        assert ours[name].default == theirs[name].default, name
    assert tuple(ours["over"].default.split(",")) == theirs["over"].default


def test_a_run_is_stored_with_how_it_was_made_and_shown_again(run, tmp_path):
    done = run("patch", "tiny", *PAIR, "--site", "z", "--over", "layer,head", "--store", "my runs", code=FAKE)
    assert done.code == 0, done.err
    (info,) = RunStore(tmp_path / "my runs").list()
    stored = RunStore(tmp_path / "my runs").open(info.id)
    assert info.kind == "effects" and info.title == "patching z of tiny: denoise, 1 pair" and len(info.model_hash) == 64
    spec = stored.manifest["spec"]
    assert spec | {"analysis": "patch", "site": "z", "over": ["layer", "head"], "clean": [TEXTS["clean"]]} == spec
    assert set(stored.manifest["timings"]) == {"load", "patch", "hash"}
    np.testing.assert_allclose(stored.results().values, exact("z", ("layer", "head")).values, atol=1e-6)
    assert "answer: 'a'" in done.out and "differs" in done.out, "the pair is shown as it was taken"
    assert "corrupt: logit_diff" in done.out and "clean: logit_diff" in done.out and "largest of Effects(" in done.out
    assert f"stored as run {info.id} in my runs" in done.err and "app --store 'my runs'" in done.err
    shown = run("runs", "show", info.id, "--store", "my runs")
    assert shown.code == 0 and info.title in shown.out
    assert done.out[done.out.index("base run") :] in shown.out, "the stored tables are those that were printed"
    data = json.loads(run("runs", "show", info.id, "--store", "my runs", "--json").out)
    assert len(data["cells"]) == 12 and data["about"]["site"] == "z" and len(data["base"]) == len(data["source"]) == 1


def test_json_has_every_cell_and_the_run(run):
    done = run("patch", "tiny", *PAIR, "--store", "runs", "--json", code=FAKE)
    data = json.loads(done.out)
    assert set(data["cells"][0]) >= {"layer", "pos", "effect"} and data["about"]["metric"] == "logit_diff"
    np.testing.assert_allclose(cells(done), exact().values.values.ravel(), atol=1e-6)
    assert [one["id"] for one in json.loads(run("runs", "list", "--json").out)] == [data["run"]]


def test_a_plan_costs_nothing_and_stores_nothing(run, tmp_path):
    code = FAKE + "\nfrom interp.causal.plan import Plan\nPlan.run = None\n"
    done = run("patch", "tiny", *PAIR, "--plan", "--store", "runs", code=code)
    assert done.code == 0 and "3 layer × 4 pos" in done.out and "to compute" in done.out
    as_json = json.loads(run("patch", "tiny", *PAIR, "--plan", "--json", code=code).out)
    assert set(as_json) == {"cells", "skipped", "token_layers", "seconds", "peak_bytes"}
    assert as_json["cells"] + as_json["skipped"] == 12 and os.listdir(tmp_path) == []


def test_pairs_come_from_a_table_too(run, tmp_path):
    rows = ["clean,corrupt,answer,foil", "the cat sat on,the mat sat on,a,cat", "a mat sat,a cat sat,on,the"]
    (tmp_path / "pairs.csv").write_text("\n".join(rows) + "\n")
    done = run("patch", "tiny", "--csv", "pairs.csv", "--store", "runs", code=FAKE)
    assert done.code == 0 and "… and 1 more pairs" in done.out
    (info,) = RunStore(tmp_path / "runs").list()
    stored = RunStore(tmp_path / "runs").open(info.id)
    assert stored.manifest["spec"]["csv"] == "pairs.csv" and info.title.endswith("2 pairs")
    found = stored.results().values
    np.testing.assert_allclose(found[0], exact().values[0], atol=1e-6)
    assert found.shape == (2, 3, 4) and np.isnan(found[1, :, 3]).all(), "the shorter prompt has no fourth token"


def test_options_given_several_times_are_several_pairs_and_one_answer_is_for_all(run):
    two = ["--clean", "the cat", "--clean", "a cat", "--corrupt", "the mat", "--corrupt", "a mat", "--answer", "on"]
    done = run("patch", "tiny", *two, "--metric", "prob", "--json", code=FAKE)
    assert done.code == 0 and len(json.loads(done.out)["base"]) == 2


def test_axes_are_restricted_and_positions_named(run):
    at = ["--at", "layer=0-1", "--at", "pos=1,-1"]
    done = run("patch", "tiny", *PAIR, *at, "--json", code=FAKE)
    np.testing.assert_allclose(
        cells(done), exact(at={"layer": [0, 1], "pos": [1, -1]}).values.values.ravel(), atol=1e-6
    )
    named = ["--position", "animal=cat", "--over", "layer,position", "--direction", "noise"]
    done = run("patch", "tiny", *PAIR, *named, "--json", code=FAKE)
    by_pos = exact(direction="noise").values.sel(pos=1).values.ravel()
    np.testing.assert_allclose(cells(done), by_pos, atol=1e-6)
    assert {cell["position"] for cell in json.loads(done.out)["cells"]} == {"animal"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("3", [3]),
        ("-1", [-1]),
        ("0,4,7", [0, 4, 7]),
        ("0-3", [0, 1, 2, 3]),
        ("0-1,5,-2", [0, 1, 5, -2]),
        ("subject", ["subject"]),
        ("subject:last", ["subject:last"]),
        ("to-do", ["to-do"]),
    ],
)
def test_places_are_numbers_ranges_or_names(text, found):
    assert _numbers(text) == found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--clean is missing"),
        (["--clean", "x"], "--corrupt is missing"),
        (["--clean", "x", "--corrupt", "y"], "--answer is missing"),
        (["--csv", "pairs.csv", "--foil", "x"], "--csv holds the pairs, so --foil has no place"),
        ([*PAIR, "--at", "layer"], "--at 'layer' is not of the form layer=0-11"),
        ([*PAIR, "--at", "=3"], "--at '=3' is not of the form"),
        ([*PAIR, "--position", "cat"], "--position 'cat' is not of the form NAME=substring"),
        ([*PAIR, "--store", "file"], "Cannot write in file: file is no folder"),
        ([*PAIR, "--html", "."], "--html . is a folder"),
        ([*PAIR, "--out", "file"], "--out file is a file"),
        ([*PAIR, "--window", "two"], "--window"),
    ],
)
def test_a_mistake_is_said_before_anything_is_loaded(run, tmp_path, arguments, message):
    (tmp_path / "file").write_text("mine")
    done = run("patch", "tiny", *arguments, code=NEVER)
    assert done.code == 2 and message in done.err and done.err.count("\n") == 1 and done.out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*PAIR, "--site", "nonsense"], "nonsense"),
        ([*PAIR, "--over", "layer,head"], "head"),
        ([*PAIR, "--direction", "up"], "direction is 'up'"),
        ([*PAIR, "--metric", "nonsense"], "There is no metric 'nonsense'"),
        ([*PAIR, "--at", "layer=99"], "99"),
        ([*PAIR, "--position", "animal=dog", "--over", "layer,position"], "dog"),
        ([*PAIR[:2], "--corrupt", "the mat", *PAIR[4:]], "patching needs them to align"),
        (["--csv", "nowhere.csv"], "nowhere.csv"),
    ],
)
def test_what_only_the_model_can_tell_is_said_too_and_nothing_is_stored(run, tmp_path, arguments, message):
    done = run("patch", "tiny", *arguments, "--store", "runs", code=FAKE)
    assert done.code == 2 and message in done.err and done.err.startswith("error: ") and done.out == ""
    assert not (tmp_path / "runs").exists()


def test_a_page_and_the_bare_results_are_written_where_it_is_told(run, tmp_path):
    done = run("patch", "tiny", *PAIR, "--html", "page.html", "--out", "bare", code=FAKE)
    assert done.code == 0 and "page: page.html" in done.err and "saved in bare" in done.err
    assert "activation patching" in (tmp_path / "page.html").read_text()
    np.testing.assert_allclose(interp.Effects.load(tmp_path / "bare").values, exact().values, atol=1e-6)


def test_ctrl_c_leaves_the_store_whole_and_exits_with_130(run, begin, tmp_path):
    run("patch", "tiny", *PAIR, "--store", "runs", code=FAKE)
    before = os.listdir(tmp_path / "runs")
    slow = """
import time
from interp.causal.sweep import Sweep
def endless(self, report=None):
    print("inside", flush=True)
    time.sleep(60)
Sweep.run = endless
"""
    process = begin("patch", "tiny", *PAIR, "--store", "runs", "--json", code=FAKE + slow)
    assert process.stdout.readline() == "inside\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err == "stopped\n"
    assert os.listdir(tmp_path / "runs") == before and RunStore(tmp_path / "runs").check() == {}


def test_ctrl_c_keeps_what_was_finished_marked_partial(run, begin, tmp_path):
    slow = """
import time
import interp.causal.budget
from interp.causal.sweep import Sweep
interp.causal.budget._MAX_TOKENS = 1
real = Sweep.run
def slowly(self, report=None):
    def stop(done, total):
        report(done, total)
        if done > 1:
            print("inside", flush=True)
            time.sleep(60)
    return real(self, stop)
Sweep.run = slowly
"""
    process = begin("patch", "tiny", *PAIR, "--store", "runs", code=FAKE + slow)
    while process.stdout.readline() != "inside\n":
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "stopped" in err
    (info,) = RunStore(tmp_path / "runs").list()
    found = RunStore(tmp_path / "runs").open(info.id).results()
    assert info.title.startswith("partial: ") and found.about["partial"] is True
    assert found.values.notnull().any() and found.values.isnull().any()


def test_prompts_that_do_not_align_are_shown_in_lines(run):
    shorter = TEXTS["corrupt"].rsplit(" ", 1)[0]
    wrong = [shorter if part == TEXTS["corrupt"] else part for part in PAIR]
    done = run("patch", "tiny", *wrong, code=FAKE)
    assert done.code == 2 and len(done.err.splitlines()) > 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--at", "layer=0", "--at", "layer=1"], "--at names layer twice"),
        (["--position", "a=w1", "--position", "a=w2"], "--position names a twice"),
    ],
)
def test_an_option_that_is_named_twice_is_not_lost(run, arguments, message):
    done = run("patch", "tiny", *PAIR, *arguments, code=NEVER)
    assert done.code == 2 and message in done.err


def test_positions_have_no_place_beside_a_table(run, tmp_path):
    (tmp_path / "pairs.csv").write_text("clean,corrupt,answer\nw1,w2,w3\n")
    done = run("patch", "tiny", "--csv", "pairs.csv", "--position", "a=w1", code=NEVER)
    assert done.code == 2 and "--position has no place" in done.err


def test_text_that_is_no_range_is_refused_only_where_it_has_no_value():
    with pytest.raises(InputError, match="is not of the form"):
        _named("layer=", "--at", "layer=0-11")
    assert _named("a=b=c", "--position", "NAME=substring") == ("a", "b=c")


FAKE_BERT = """
import interp
from tests.cli.test_patch import tiny_encoder
interp.load = tiny_encoder
"""
FAKE_TWO = FAKE_BERT.replace("tiny_encoder", "tiny_two")
MASKED = {"clean": "the [MASK] sat on", "corrupt": "a [MASK] mat on", "answer": "cat", "foil": "mat"}


def _tiny(**stacks) -> HookedTransformer:
    words = ["?", "[MASK]", "the", "a", "cat", "mat", "sat", "on"]
    backend = Backend(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(["[MASK]"])
    tokenizer = Tokenizer(backend, add_bos=False, bos_id=None, eos_id=None, pad_id=None, unk_id=0, mask_id=1)
    config = replace(ZOO["two_stacks" if len(stacks) == 2 else "encoder"], d_vocab=len(words))
    return randomize(HookedTransformer(config, tokenizer))


def tiny_encoder(name: str = "bert", **ignored) -> HookedTransformer:
    return _tiny(encoder=True)


def tiny_two(name: str = "bart", **ignored) -> HookedTransformer:
    return _tiny(encoder=True, decoder=True)


@pytest.mark.parametrize("read", ["mask", "1", "-3"])
def test_an_encoder_is_read_at_its_mask_or_at_a_position(run, read):
    asked = [part for name, text in MASKED.items() for part in (f"--{name}", text)]
    done = run("patch", "bert", *asked, "--read", read, "--json", code=FAKE_BERT)
    assert done.code == 0, done.err
    model = tiny_encoder()
    exact = interp.patch(model, interp.PromptPairs.from_text(model, **MASKED, read="mask"), "resid_pre")
    np.testing.assert_allclose(cells(done), exact.values.values.ravel(), atol=1e-5)


def test_an_encoder_without_a_read_is_told_of_it(run):
    asked = [part for name, text in MASKED.items() for part in (f"--{name}", text)]
    done = run("patch", "bert", *asked, code=FAKE_BERT)
    assert done.code == 2 and 'read="mask"' in done.err
    done = run("patch", "bert", *asked, "--read", "last", code=NEVER)
    assert done.code == 2 and "--read is 'last'. Give an index" in done.err


def test_what_the_decoder_has_read_is_an_option(run, tmp_path):
    texts = {"clean": "the cat sat", "corrupt": "the mat sat", "answer": "cat", "foil": "mat"}
    model = tiny_two()
    decoders = {"decoder": "on the", "corrupt_decoder": "on a"}
    pairs = interp.PromptPairs.from_text(model, **texts, **decoders)
    exact = interp.patch(model, pairs, "decoder.cross_attn.z", ("layer", "head")).values.values.ravel()
    asked = [part for name, text in texts.items() for part in (f"--{name}", text)]
    options = ["--decoder", "on the", "--corrupt-decoder", "on a", "--json"]
    grid = ["--site", "decoder.cross_attn.z", "--over", "layer,head"]
    done = run("patch", "bart", *asked, *options, *grid, code=FAKE_TWO)
    assert done.code == 0, done.err
    np.testing.assert_allclose(cells(done), exact, atol=1e-5)
    (tmp_path / "pairs.csv").write_text("clean,corrupt,answer,foil\nthe cat sat,the mat sat,cat,mat\n")
    done = run("patch", "bart", "--csv", "pairs.csv", *options, *grid, code=FAKE_TWO)
    np.testing.assert_allclose(cells(done), exact, atol=1e-5)


def test_the_help_names_every_column_of_a_table(run):
    shown = " ".join(run("patch", "--help").out.replace("│", " ").split())
    for column in ("clean", "corrupt", "answer", "foil", "item", "template", "read", "pos:NAME"):
        assert column in shown[shown.index("Pairs from a table") :][:260], column
