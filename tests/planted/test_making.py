"""Making planted models: what is asked, what is refused, and the diagrams they are made from."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from interp import planted
from interp.errors import InputError
from interp.planted.lay import build_model
from interp.planted.wiring import Match, Move, Neurons, Wiring
from interp.sites import Head

Make = Callable[..., planted.Planted]
NINE = {"induction", "ioi", "coreference", "fact_recall", "or", "and", "negative", "saturated", "cancelling"}


def test_the_nine_circuits_are_there() -> None:
    assert set(planted.names()) >= NINE
    assert set(planted.EPSILON) == set(planted.names())
    assert all(0 < size < 1 for size in planted.EPSILON.values())


@pytest.mark.parametrize("name", planted.names())
def test_each_says_what_its_heads_do(name: str, made: Make) -> None:
    one = made(name)
    for heads in one.truth.heads.values():
        assert heads
        for head in heads:
            assert str(head) in one.about
    assert not {h for some in one.truth.heads.values() for h in some} & {
        h for some in one.truth.decoys.values() for h in some
    }
    for pairs in one.pairs.values():
        assert len(set(pairs.items)) == len(pairs.clean), "items of so few prompts are all different"
        assert "END" in pairs.positions


@pytest.mark.parametrize("name", planted.names())
def test_the_same_seed_gives_the_same_model_and_prompts(name: str) -> None:
    options = {"n": 4, "noise": 0.01, "rotate": True, "norm": "layer", "seed": 5}
    one, again = planted.make(name, **options), planted.make(name, **options)
    assert one.pairs == again.pairs
    assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), again.model.parameters(), strict=True))
    assert one.pairs != planted.make(name, **{**options, "seed": 6}).pairs


def test_tokens_name_positions_as_the_tasks_do(made: Make) -> None:
    wanted = {
        "ioi": {"IO", "S1", "S2", "END"},
        "coreference": {"pronoun", "antecedent", "distractor", "END"},
        "fact_recall": {"subject", "relation", "END"},
        "additive_facts": {"subject", "relation", "END"},
    }
    for name, places in wanted.items():
        for pairs in made(name).pairs.values():
            assert places <= set(pairs.positions)


def test_queries_are_grouped_where_the_name_says_so(made: Make) -> None:
    assert made("induction_grouped").model.cfg.n_key_value_heads == 2
    assert made("induction").model.cfg.n_key_value_heads == 4


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"name": "inductoin"}, "no planted circuit 'inductoin'. Known are additive_facts, agreement, and, "),
        ({"norm": "batch"}, "norm is 'batch'. Choose"),
        ({"noise": -1.0}, "noise is -1.0"),
        ({"seed": "a"}, "seed is 'a'"),
        ({"seed": -1}, "seed is -1"),
        ({"n": 3}, "at least 4 prompts"),
    ],
)
def test_what_cannot_be_made_is_refused_with_what_can(options: dict, says: str) -> None:
    with pytest.raises(InputError, match=says.replace(".", r"\.")):
        planted.make(**{"name": "induction", **options})


def test_an_empty_null_is_refused() -> None:
    with pytest.raises(InputError, match="0 layers"):
        planted.null(0)


def _small(**options: int) -> Wiring:
    wiring = Wiring(
        {"tok": 5, "pos": 4, "out": 5}, n_tokens=5, n_ctx=4, n_layers=1, n_heads=2, **{"n_kv_heads": 2, **options}
    )
    wiring.embed("tok")
    wiring.place("pos")
    wiring.unembed("out")
    return wiring


def _built(wiring: Wiring) -> torch.Tensor:
    model = build_model(wiring, "small", norm="none", rotate=False, noise=0.0, seed=0, dtype=torch.float64)
    return model(torch.tensor([[1, 2, 3, 1]]))[0].detach()


def test_a_wired_head_copies_what_it_attends_to() -> None:
    wiring = _small()
    wiring.head("0.1", [Match("tok", "tok"), Match("pos", "pos", -30.0)], [Move("tok", "out", gain=0.5)])
    logits = _built(wiring)
    assert torch.allclose(logits[3], 5.0 * torch.eye(5, dtype=torch.float64)[1], atol=1e-9)


def test_wired_neurons_fire_where_they_should() -> None:
    wiring, some = _small(), torch.zeros(5, 1)
    some[2] = 1.0
    wiring.layer(0, Neurons("tok", "out", into=some, out=torch.eye(5)[4:], bias=-0.25))
    logits = _built(wiring)
    assert torch.allclose(logits[1], 7.5 * torch.eye(5, dtype=torch.float64)[4])
    assert logits[[0, 2, 3]].abs().max() == 0


def test_a_diagram_refuses_what_is_not_in_it() -> None:
    wiring = _small()
    with pytest.raises(InputError, match=r"no subspace 'toc'\. Known are tok, pos, out"):
        wiring.head("0.0", [Match("toc", "tok")], [])
    with pytest.raises(InputError, match=r"0\.7 is not there: 1 layers of 2 heads"):
        wiring.head("0.7", [], [])
    with pytest.raises(InputError, match="out takes a table of 5 × 5"):
        wiring.embed("out", torch.eye(3))


def test_heads_of_a_group_have_to_share_keys_and_values() -> None:
    wiring = _small(n_kv_heads=1)
    wiring.head("0.0", [Match("tok", "tok")], [Move("tok", "out")])
    wiring.head("0.1", [Match("pos", "pos")], [Move("tok", "out")])
    with pytest.raises(InputError, match=r"0\.1 shares key/value head 0"):
        _built(wiring)


def test_truth_speaks_of_heads(made: Make) -> None:
    truth = made("ioi").truth
    assert truth.heads["name_mover"] == {Head(2, 1)}
    assert truth.decoys["name_mover"] == {Head(2, 0)}


def test_the_examples_of_the_docs_run(capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[2] / "docs" / "planted.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 3
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    assert "frozenset({'0.1', '1.2', '2.1'})" in _sorted_sets(capsys.readouterr().out)


def _sorted_sets(text: str) -> str:
    """Sets of names as text, their order made one."""
    return re.sub(
        r"frozenset\(\{('\d.*?)\}\)", lambda m: "frozenset({" + ", ".join(sorted(m[1].split(", "))) + "})", text
    )


def test_planted_models_are_reached_from_the_package_and_imported_on_use() -> None:
    code = (
        "import sys, interp; assert 'interp.planted' not in sys.modules; "
        "assert 'ioi' in interp.planted.names() and 'planted' in dir(interp) and 'planted' in interp.__all__"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
