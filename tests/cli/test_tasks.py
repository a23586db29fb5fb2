"""`interp tasks`: the list, a task with how the model does on it, and a table that makes the task again."""

from __future__ import annotations

import json

import interp
from interp.model.config import ModelConfig
from interp.model.transformer import HookedTransformer
from interp.tasks.measure import measure

FAKE = """
import interp
from tests.cli.test_tasks import wordless
interp.load = wordless
"""
NEVER = "\nimport interp\ndef never(*_, **__): raise SystemExit('loaded')\ninterp.load = never\n"


def wordless(name: str = "tiny", **_: object) -> HookedTransformer:
    """A model without a tokenizer: its names are random tokens."""
    config = ModelConfig.decoder_only(n_layers=1, d_model=8, n_heads=1, d_vocab=64, n_ctx=64, model_name=name)
    return HookedTransformer(config, seed=0)


def test_the_list_names_every_task_with_its_corruptions_and_places(run):
    done = run("tasks", "list")
    assert done.code == 0, done.err
    assert all(name in done.out for name in interp.tasks.names()) and "third_name" in done.out and "S1+1" in done.out
    found = {one["name"]: one for one in json.loads(run("tasks", "list", "--json").out)}
    assert set(found) == set(interp.tasks.names()) and found["ioi"]["corruptions"] == ["swap", "third_name", "abc"]


def test_a_wrong_name_is_said_before_a_model_is_loaded(run):
    done = run("tasks", "show", "oii", "tiny", code=NEVER)
    assert done.code == 2 and "no task called 'oii'" in done.err and "loaded" not in done.err


def test_show_prints_pairs_and_what_was_measured(run):
    model = wordless()
    wanted = measure(interp.tasks.load("ioi", model, "abc", n=4, split="select"), model)
    arguments = ("tasks", "show", "ioi", "tiny", "--n", "4", "--split", "select", "--corruption", "abc")
    done = run(*arguments, "--json", code=FAKE)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["measured"] == wanted and len(found["prompts"]) == 4
    done = run(*arguments, "--pairs", "2", code=FAKE)
    assert done.code == 0 and done.out.count("differs") == 2 and f"{wanted['mean']:+.2f}" in done.out


def test_an_exported_table_makes_the_task_again(run, tmp_path):
    done = run("tasks", "export", "ioi", "tiny", "--n", "5", "--seed", "2", "--out", "ioi.csv", code=FAKE)
    assert done.code == 0 and done.out.strip() == "ioi.csv", done.err
    model = wordless()
    task = interp.tasks.load("ioi", model, n=5, seed=2)
    again = interp.tasks.from_csv("ioi", tmp_path / "ioi.csv", model)
    assert again.pairs == task.pairs and again.about["bos"] is False


def test_a_task_that_the_model_cannot_read_is_a_mistake(run):
    done = run("tasks", "show", "coreference", "tiny", code=FAKE)
    assert done.code == 2 and "no tokenizer" in done.err
