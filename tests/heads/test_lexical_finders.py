"""Successor, retrieval, semantic relation and function vector heads: on models whose weights were set by hand, with
decoys; against slow oracles; and where there is nothing to find."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

import interp
from interp import planted
from interp.circuits.ov_tokens import token_ov_logits
from interp.errors import InputError
from interp.heads import function_vector
from interp.heads.base import finder
from interp.heads.semantic_relation import attention_gained
from interp.heads.study import Study
from interp.model.config import ModelConfig
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.planted.lay import build_model
from interp.planted.one_source import source_pairs, source_wiring, to_source
from interp.planted.wiring import SHARP, Match, Move, Neurons, Wiring, identity
from interp.sites import Head
from tests.heads.test_null import binomial_bound, false_positives_of_task
from tests.heads.test_task_finders import named

KINDS = ("successor", "retrieval", "semantic_relation", "function_vector")
BOS, END, N = 0, 1, 24
REST = Match("one", "bos", SHARP / 2)  # other queries look at BOS


def search(model: HookedTransformer, kind: str, pairs: PromptPairs, **options):
    return interp.find_heads(model, kind, pairs=pairs, top=4, n_random_sets=2, **options)


def made(wiring: Wiring, name: str, noise: float = 0.0) -> HookedTransformer:
    return build_model(wiring, name, norm="none", rotate=False, noise=noise, seed=0, dtype=torch.float32)


def row_of(scores, kind: str, head: str) -> dict:
    at = Head.parse(head)
    rows = scores.of(kind)
    return rows[(rows["layer"] == at.layer) & (rows["head"] == at.head)].iloc[0].to_dict()


# What comes next


MEMBERS = range(2, 2 + N)


@cache
def counting(noise: float = 0.0):
    """MLP 0 knows each member's successor. Layer 1: head 0 brings it to END; 1 has its attention and writes where
    nothing reads; 2 has its OV and looks at BOS; 3 has its attention and copies the member itself."""
    n = MEMBERS.stop
    widths = {"tok": n, "one": 1, "bos": 1, "end": 1, "member": 1, "next": n, "out": n, "junk": n}
    wiring = Wiring(widths, n, 6, n_layers=2)
    wiring.embed("tok", silent=BOS)
    for flag, tokens in (("one", range(n)), ("bos", [BOS]), ("end", [END]), ("member", MEMBERS)):
        wiring.flag(flag, tokens)
    after = torch.zeros(n, n)
    after[list(MEMBERS), [*MEMBERS[1:], MEMBERS[0]]] = 1.0
    wiring.layer(0, Neurons("tok", "next", into=identity(n), out=after.double()))
    looks = [Match("end", "member"), REST]
    wiring.head("1.0", looks, [Move("next", "out")])
    wiring.head("1.1", looks, [Move("next", "junk")])
    wiring.head("1.2", [Match("one", "bos")], [Move("next", "out")])
    wiring.head("1.3", looks, [Move("tok", "out", 0.5)])
    wiring.unembed("out")
    model = made(wiring, "counting", noise)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(3)).tolist()
    rows: dict[str, list] = {name: [] for name in ("clean", "corrupt", "answer", "foil")}
    for i in range(N):
        said, other = order[i], order[(i + 7) % N]
        for name, which in (("clean", said), ("corrupt", other)):
            rows[name].append([BOS, MEMBERS[which], END])
        rows["answer"].append(MEMBERS[(said + 1) % N])
        rows["foil"].append(MEMBERS[(other + 1) % N])
    pairs = PromptPairs.from_tokens(**rows, positions={"ordinal": [[1]] * N}, items=[str(one) for one in order])
    return model, pairs, search(model, "successor", pairs)


def test_a_head_that_adds_one_is_found_and_those_that_only_look_write_or_copy_are_not():
    _, _, scores = counting()
    assert named(scores, "successor") == {"1.0"}
    looks, writes, copies = (row_of(scores, "successor", head) for head in ("1.1", "1.2", "1.3"))
    assert looks["attention"] == pytest.approx(1, abs=1e-5) and looks["score"] == 0 and looks["verdict"] == ""
    assert writes["score"] == 1 and writes["attention"] < 1e-5
    assert writes["verdict"] == "attends like successor" and "writes nothing" in writes["reason"]
    assert copies["score"] == 0 and copies["attention"] == pytest.approx(1, abs=1e-5)
    real = row_of(scores, "successor", "1.0")
    assert [one["in_context"] for one in (real, looks, copies)] == [1, 0, 0], "what is moved is what weights say"
    assert scores.about["baselines"]["successor"]["chance"] == pytest.approx(1 / N, rel=0.2)


def test_classes_that_begin_again_have_a_successor_more_than_others():
    model, pairs, _ = counting()
    about = {"same_relation_answers": {name: [(one,) for one in MEMBERS] for name in ("days", "letters")}}
    study = Study(model, {"start": pairs}, ("END",), {"relation": ["days"] * N}, about)
    table = finder("successor").tables["successor: share of successors by class"](study).set_index(["layer", "head"])
    assert set(table["n"]) == {f"days {N}, letters {N - 1}"}
    assert table.loc[(1, 0), ["all", "days", "letters"]].tolist() == [1, 1, 1]
    assert table.loc[(1, 3), ["all", "days", "letters"]].tolist() == [0, 0, 0]


def test_name_movers_and_induction_are_no_successors():
    for name, corruption in (("ioi", "abc"), ("copy_suppression", "absent")):
        one = planted.make(name)
        pairs = one.pairs[corruption]
        spans = pairs.positions["S2"] if name == "ioi" else tuple((at - 1,) for at in pairs.read)
        scores = search(one.model, "successor", replace(pairs, positions={"ordinal": spans}))
        assert named(scores, "successor") == set()


def test_the_ov_of_tokens_is_that_of_each_head_by_itself():
    sizes = {"n_layers": 2, "d_model": 32, "n_heads": 4, "n_key_value_heads": 2, "d_mlp": 64}
    model = HookedTransformer(ModelConfig.decoder_only(d_vocab=60, n_ctx=16, **sizes), seed=1)
    tokens, outputs = torch.tensor([5, 9, 31]), torch.tensor([4, 8, 15, 16])
    found = token_ov_logits(model, tokens, outputs)
    for layer in range(2):
        for head in range(4):
            for i, token in enumerate(tokens.tolist()):
                table = interp.ov(model, f"{layer}.{head}").token(token, k=30).frame.set_index("id")["logit"]
                wanted = table.loc[outputs.tolist()].to_numpy()
                mine = found[layer, head, i].numpy()
                np.testing.assert_allclose(mine - mine.mean(), wanted - wanted.mean(), atol=1e-5)


def test_a_model_whose_heads_have_no_direct_logits_says_so():
    cfg = ModelConfig.decoder_only(n_layers=1, d_model=16, n_heads=2, d_vocab=30, n_ctx=16)
    stack = cfg.decoder
    post = replace(stack, blocks=tuple(replace(block, norms="post") for block in stack.blocks))
    model = HookedTransformer(replace(cfg, decoder=post, model_name="old"))
    with pytest.raises(InputError, match=r"old norms its residual stream.*interp\.patch"):
        token_ov_logits(model, torch.tensor([1]), torch.tensor([2]))


# A needle


@cache
def finding(noise: float = 0.0):
    """Layer 1: head 0 copies the source to END; 1 has its attention and writes where nothing reads; 2 copies BOS."""
    wiring = source_wiring(2)
    wiring.head("1.0", to_source(), [Move("tok", "out")])
    wiring.head("1.1", to_source(), [Move("tok", "junk")])
    wiring.head("1.2", [Match("one", "bos")], [Move("tok", "out")])
    model = made(wiring, "needle", noise)
    pairs = source_pairs(N, torch.Generator().manual_seed(0))["swap"]
    needle = tuple((span[0] - 1, *span) for span in pairs.positions["source"])
    pairs = replace(pairs, positions={"needle": needle})
    return model, pairs, search(model, "retrieval", pairs)


def test_a_head_that_copies_the_needles_word_is_found_and_decoys_are_not():
    _, _, scores = finding()
    assert named(scores, "retrieval") == {"1.0"}
    looks, copies = row_of(scores, "retrieval", "1.1"), row_of(scores, "retrieval", "1.2")
    assert looks["score"] == 1 and looks["verdict"] == "attends like retrieval" and looks["effect"] == 0
    assert copies["score"] == 0 and copies["verdict"] == ""
    real = row_of(scores, "retrieval", "1.0")
    assert real["knockout"] == pytest.approx(0.5, abs=1e-4), "without the edge neither the word nor its foil is written"
    assert looks["knockout"] == pytest.approx(0, abs=1e-6) and real["noise"] == pytest.approx(1, abs=1e-4)


def test_where_a_head_looks_most_is_what_its_pattern_says():
    model = HookedTransformer(
        ModelConfig.decoder_only(n_layers=2, d_model=32, n_heads=4, n_key_value_heads=2, d_vocab=60, n_ctx=32), seed=2
    )
    draw = torch.Generator().manual_seed(5)
    rows = [torch.randint(2, 60, (length,), generator=draw).tolist() for length in (7, 12, 9)]
    pairs = PromptPairs.from_tokens(rows, rows, [3] * 3, [4] * 3, positions={"early": [[4], [6], [5]]})
    study = Study(model, {"none": pairs}, ("END", "early"))
    for i, row in enumerate(rows):
        _, cache = model.run_with_cache(torch.tensor([row]))
        for layer in range(2):
            for name, at in (("END", len(row) - 1), ("early", pairs.span("early", i)[0])):
                pattern = cache["pattern", layer][0, :, at]
                assert study.looks_at(name)[i, layer].tolist() == pattern.argmax(-1).tolist()
                rest = 1 + pattern[:, 1:].argmax(-1)
                assert study.looks_at(name, first=False)[i, layer].tolist() == rest.tolist()


def test_a_word_is_retrieved_where_nothing_is_looked_at_more_not_even_the_first_token():
    model = HookedTransformer(
        ModelConfig.decoder_only(n_layers=2, d_model=32, n_heads=4, n_key_value_heads=2, d_vocab=60, n_ctx=32), seed=2
    )
    rows = torch.stack([torch.randperm(58, generator=torch.Generator().manual_seed(i))[:6] + 2 for i in range(16)])
    pattern = model.run_with_cache(rows)[1]["pattern", 0][:, 0, -1]
    at = 1 + pattern[:, 1:].argmax(-1)  # where the first head looks most, but for the first token
    words = rows[torch.arange(len(rows)), at].tolist()
    pairs = PromptPairs.from_tokens(rows, rows, words, [1] * 16, positions={"needle": [[i] for i in at.tolist()]})
    one, study = finder("retrieval"), Study(model, {"value": pairs}, ("END",))
    found = one.behaviour(study)
    assert found.beside["without_first"][:, 0, 0].tolist() == [1.0] * 16
    retrieved = (pattern.argmax(-1) == at).double().tolist()
    assert found.score[:, 0, 0].tolist() == retrieved and 0 < sum(retrieved) < 16
    others = [[token for token in row if token != word] for row, word in zip(rows.tolist(), words, strict=True)]
    own, *rest = (
        study.writes("END", "needle", up=[[token] for token in tokens])
        for tokens in (words, *zip(*others, strict=True))
    )
    np.testing.assert_allclose(one.writing.measure(study), own - np.mean(rest, axis=0), atol=1e-5)


# Related words


@cache
def relating(noise: float = 0.0):
    """ "BOS cue filler ASK word": pairs of cue and word. Layer 1: head 0 looks from a word at its own cue, and brings
    the cue's word to ASK; 1 does so too and writes where nothing reads; 2 looks from any word at any cue."""
    cues, words, ask = range(3, 3 + N), range(3 + N, 3 + 2 * N), 2
    n = words.stop
    widths = {"tok": n, "one": 1, "bos": 1, "ask": 1, "cue": 1, "word": 1, "out": n, "junk": n}
    wiring = Wiring(widths, n, 6, n_layers=2)
    wiring.embed("tok", silent=BOS)
    for flag, tokens in (("one", range(n)), ("bos", [BOS]), ("ask", [ask]), ("cue", cues), ("word", words)):
        wiring.flag(flag, tokens)
    own, related = torch.zeros(2, n, n).double()
    own[list(words), list(cues)] = 1.0
    related[list(cues), list(words)] = 1.0
    looks = [Match("tok", "tok", table=own), Match("ask", "cue"), REST]
    wiring.head("1.0", looks, [Move("tok", "out", table=related)])
    wiring.head("1.1", looks, [Move("tok", "junk", table=related)])
    wiring.head("1.2", [Match("word", "cue"), REST], [Move("tok", "out", table=related)])
    wiring.unembed("out")
    model = made(wiring, "related", noise)
    rows: dict[str, list] = {name: [] for name in ("clean", "corrupt", "answer", "foil")}
    for i in range(N):
        other = (i + 9) % N
        rows["clean"].append([BOS, cues[i], 1, ask, words[i]])
        rows["corrupt"].append([BOS, cues[other], 1, ask, words[i]])
        rows["answer"].append(words[i])
        rows["foil"].append(words[other])
    places = {"cue": [[1]] * N, "related": [[4]] * N}
    pairs = PromptPairs.from_tokens(**rows, read=[3] * N, positions=places, items=[str(i) for i in range(N)])
    return model, pairs, search(model, "semantic_relation", pairs)


def test_a_head_that_looks_at_what_is_related_and_writes_it_is_found_and_decoys_are_not():
    _, _, scores = relating()
    assert named(scores, "semantic_relation") == {"1.0"}
    silent, blind = (row_of(scores, "semantic_relation", head) for head in ("1.1", "1.2"))
    assert silent["score"] == pytest.approx(1, abs=1e-5) and silent["verdict"] == "attends like semantic_relation"
    assert blind["attention"] == pytest.approx(1, abs=1e-5) and blind["score"] == pytest.approx(0, abs=1e-5)


def test_what_a_relation_adds_is_the_difference_of_plain_passes():
    model, pairs, _ = relating()
    study = Study(model, {"mismatched": pairs.select(range(3))}, ("related", "END"))
    gained = np.subtract(*attention_gained(study))
    for i in range(3):
        both = [model.run_with_cache(torch.tensor([rows[i]]))[1] for rows in (pairs.clean, pairs.corrupt)]
        for layer in range(2):
            first, second = (cache["pattern", layer][0, :, 4, 1].detach().numpy() for cache in both)
            np.testing.assert_allclose(gained[i, layer], first - second, atol=1e-6)


# Functions


@cache
def showing(noise: float = 0.0):
    """ "BOS label label q": q has one value by each of two functions, and labels say which is meant. Layer 1: head 0
    brings the function from the labels to q; 1 has its attention and writes where nothing reads; 2 writes the first
    function whatever stands there."""
    labels, neutral, queries = (2, 3), 4, range(5, 5 + N)
    values = [range(5 + (k + 1) * N, 5 + (k + 2) * N) for k in range(2)]
    n = values[1].stop
    widths = {"tok": n, "one": 1, "bos": 1, "q": 1, "label": 1, "which": 2, "out": n, "junk": n}
    wiring = Wiring(widths, n, 6, n_layers=2)
    wiring.embed("tok")
    meant = torch.zeros(n, 2)
    meant[list(labels), [0, 1]] = 1.0
    wiring.embed("which", meant)
    flags = (("one", range(n)), ("bos", [BOS]), ("q", queries), ("label", [*labels, neutral]))
    for flag, tokens in flags:
        wiring.flag(flag, tokens)
    either, chosen = torch.zeros(n, n).double(), torch.zeros(2, n).double()
    for k in range(2):
        either[list(queries), list(values[k])] = 1.0
        chosen[k, list(values[k])] = 1.0
    looks = [Match("q", "label"), REST]
    wiring.head("1.0", looks, [Move("which", "out", 0.3, table=chosen)])
    wiring.head("1.1", looks, [Move("which", "junk", table=chosen)])
    wiring.head("1.2", [Match("one", "bos")], [Move("one", "out", 0.3, table=chosen[:1])])
    wiring.unembed("out")
    wiring.unembed("tok", either)
    model = made(wiring, "functions", noise)
    rows: dict[str, list] = {name: [] for name in ("clean", "corrupt", "answer", "foil")}
    for i in range(N):
        rows["clean"].append([BOS, labels[1], labels[1], queries[i]])
        rows["corrupt"].append([BOS, neutral, neutral, queries[i]])
        rows["answer"].append(values[1][i])
        rows["foil"].append(values[0][i])
    about = {"positions": {"labels": [[1, 2]] * N}, "items": [str(i) for i in range(N)]}
    pairs = PromptPairs.from_tokens(**rows, **about)
    return model, pairs, search(model, "function_vector", pairs)


def test_a_head_whose_mean_output_brings_the_function_is_found_and_decoys_are_not():
    _, _, scores = showing()
    assert named(scores, "function_vector") == {"1.0"}
    real, silent, constant = (row_of(scores, "function_vector", head) for head in ("1.0", "1.1", "1.2"))
    assert real["function_vector"] == pytest.approx(1, abs=1e-4)
    assert silent["attention"] == pytest.approx(1, abs=1e-4) and silent["score"] == pytest.approx(0, abs=1e-4)
    assert constant["score"] == pytest.approx(0, abs=1e-4) and constant["verdict"] == silent["verdict"] == ""


@pytest.fixture(scope="module")
def shown():
    """A random model, and pairs of two functions in prompts of different lengths."""
    sizes = {"n_layers": 2, "d_model": 32, "n_heads": 4, "n_key_value_heads": 2, "d_mlp": 64}
    model = HookedTransformer(ModelConfig.decoder_only(d_vocab=60, n_ctx=32, **sizes), seed=4)
    draw = torch.Generator().manual_seed(6)
    clean, corrupt = ([torch.randint(2, 60, (6 + i % 2,), generator=draw).tolist() for i in range(6)] for _ in "ab")
    pairs = PromptPairs.from_tokens(
        clean, corrupt, list(range(10, 16)), list(range(20, 26)), positions={"labels": [[1, 2]] * 6}
    )
    return model, Study(model, {"shuffled_labels": pairs}, ("END",), {"relation": ("a", "a", "b", "b", "b", "a")})


def by_hand(model: HookedTransformer, study: Study, i: int, heads: list[tuple[int, int]], others: list[int]) -> float:
    """The rise of one prompt's logit difference, from plain passes: heads are set to the mean over others' z."""
    pairs, sites = study.main, [f"blocks.{layer}.attn.hook_z" for layer, _ in heads]
    z = []
    for other in others:
        _, cache = model.run_with_cache(torch.tensor([pairs.clean[other]]))
        z.append([cache["z", layer][0, -1, head] for layer, head in heads])
    hooks = []
    for k, (site, (_, head)) in enumerate(zip(sites, heads, strict=True)):
        mean = torch.stack([one[k] for one in z]).mean(0)

        def put(x, hook, mean=mean, head=head):
            x[:, -1, head] = mean

        hooks.append((site.replace(".attn.", ".attn."), put))
    row = torch.tensor([pairs.corrupt[i]])
    answer, foil = pairs.answer[i][0][0], pairs.foil[i][0][0]
    with torch.no_grad():
        before, after = model(row)[0, -1], model.run_with_hooks(row, fwd_hooks=hooks)[0, -1]
    return float((after[answer] - after[foil]) - (before[answer] - before[foil]))


def test_the_indirect_effect_is_that_of_plain_passes_with_the_mean_over_other_items_of_the_function(shown):
    model, study = shown
    score = function_vector._indirect_effect(study).score
    names = study.labels["relation"]
    for i in range(6):
        others = [j for j in range(6) if j != i and names[j] == names[i]]
        for layer, head in ((0, 0), (0, 3), (1, 1), (1, 2)):
            assert score[i, layer, head] == pytest.approx(by_hand(model, study, i, [(layer, head)], others), abs=1e-5)
    pair = [(0, 1), (1, 2)]
    together = function_vector._rises(study, [tuple(Head(*one, "attn", "") for one in pair)])
    others = [j for j in range(1, 6) if names[j] == names[0]]
    assert together[0, 0] == pytest.approx(by_hand(model, study, 0, pair, others), abs=1e-5)


def test_means_of_the_selecting_prompts_are_what_reported_heads_are_set_to(shown):
    model, study = shown
    function_vector._find_means(study)
    rest = replace(study, memo={"function_means": study.memo["function_means"]})
    mine = [j for j, name in enumerate(rest.labels["relation"]) if name == "b"]
    score = function_vector._indirect_effect(rest).score
    assert score[2, 1, 0] == pytest.approx(by_hand(model, rest, 2, [(1, 0)], mine), abs=1e-5)
    unknown = replace(rest, labels={"relation": ("c",) * 6}, memo=dict(rest.memo, rises=None))
    unknown.memo.pop("rises")
    score = function_vector._indirect_effect(unknown).score
    assert score[0, 0, 1] == pytest.approx(by_hand(model, unknown, 0, [(0, 1)], list(range(6))), abs=1e-5)


# Nothing to find


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_random_models_with_shuffled_labels_have_no_such_heads(kind, placed):
    rejected, called = false_positives_of_task(kind, range(5), placed)
    assert max(rejected, called) <= binomial_bound(5, 0.05), (rejected, called)
