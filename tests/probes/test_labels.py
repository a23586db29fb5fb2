"""The contract of every label set, and what each of them promises."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import interp
from interp.errors import InputError
from interp.heads.syntax_text import can_parse
from interp.model.transformer import HookedTransformer
from interp.tasks.agreement_words import PEOPLE, THINGS
from interp.tasks.base import SPLITS, definitions
from probes.gather import dataset
from probes.labels import label_set, label_sets
from probes.labels.dependency_tree import tree_depths, tree_distances
from probes.storage import read_dataset
from tests.probes.test_dataset import model_of

SETS = list(label_sets())


@pytest.fixture(scope="module")
def drawn(reader: HookedTransformer) -> Any:
    """A small dataset of any label set, at the embedding layer."""
    made: dict[tuple, Any] = {}

    def get(name: str, **options: Any) -> Any:
        options = {"n": 4, "sites": "resid_pre.0", **options}
        key = (name, *sorted(options.items()))
        if key not in made:
            made[key] = dataset(reader, name, **options)
        return made[key]

    return get


def kept_apart(table: pd.DataFrame, column: str) -> bool:
    """Whether each value of a column stands in one group only."""
    return bool((table.groupby(column)["group"].nunique() == 1).all())


def test_the_label_sets_are_those_of_the_issue() -> None:
    assert SETS == [
        "antecedent",
        "capital",
        "dependency",
        "dependency_tree",
        "part_of_speech",
        "previous_token",
        "subject_number",
        "truth",
    ]


@pytest.mark.parametrize("name", SETS)
def test_a_label_set_says_what_it_is_and_has_rows_with_labels(name: str, drawn: Any) -> None:
    one, found = label_sets()[name], drawn(name)
    assert one.name == name and one.definition and one.unit and one.group and not one.definition.endswith(".")
    assert set(found.targets) <= set(one.targets) and len(found) > 10
    assert found.labels.notna().any(axis=1).all(), "a row without any label"
    assert (found.table["type"] != "").all() and found.table["group"].nunique() >= 4
    assert {"labels", "definition", "group", "n", "split", "seed", "sites", "prepend_bos"} <= found.about.keys()
    for target in found.targets:
        if found.labels[target].dtype == object:
            assert found.labels[target].nunique() >= 2


@pytest.mark.parametrize("name", SETS)
def test_a_stored_label_set_is_read_back_as_it_was(
    name: str, drawn: Any, reader: HookedTransformer, tmp_path: Path
) -> None:
    stored = dataset(reader, name, n=4, sites="resid_pre.0", storage=tmp_path / name)
    again = read_dataset(tmp_path / name)
    for one in (stored, again):
        assert one.table.equals(drawn(name).table) and one.labels.equals(drawn(name).labels)
        assert one.about == drawn(name).about and (one.labels.dtypes == drawn(name).labels.dtypes).all()


@pytest.mark.parametrize("name", SETS)
def test_the_same_seed_draws_the_same_rows_and_another_seed_others(name: str, drawn: Any, reader: Any) -> None:
    again = dataset(reader, name, n=4, sites="resid_pre.0")
    assert again.table.equals(drawn(name).table) and again.labels.equals(drawn(name).labels)
    assert not dataset(reader, name, n=4, sites="resid_pre.0", seed=1).table.equals(drawn(name).table)


@pytest.mark.parametrize("name", SETS)
def test_all_is_both_splits(name: str, drawn: Any) -> None:
    parts = [drawn(name, split=split) for split in SPLITS]
    assert len(drawn(name)) == sum(map(len, parts)) and min(map(len, parts)) > 0
    texts = [set(zip(part.table["pos"], part.table["token"], part.table["text"], strict=True)) for part in parts]
    assert texts[0] != texts[1]


@pytest.mark.parametrize("name", SETS)
def test_rows_are_in_the_order_of_texts_and_positions_and_none_comes_twice(name: str, drawn: Any) -> None:
    at = list(zip(drawn(name).table["text"], drawn(name).table["pos"], strict=True))
    assert at == sorted(set(at))


@pytest.mark.parametrize("name", SETS)
def test_bos_stands_in_front_unless_said_otherwise(name: str, drawn: Any) -> None:
    with_bos, without = drawn(name), drawn(name, prepend_bos=False)
    if name != "previous_token":  # its windows are cut anew
        assert (with_bos.table["pos"].to_numpy() == without.table["pos"].to_numpy() + 1).all()
    assert not (with_bos.table["pos"] == 0).any()


@pytest.mark.parametrize("name", SETS)
def test_more_than_there_is_is_refused_with_what_there_is(name: str, reader: HookedTransformer) -> None:
    unit = label_sets()[name].unit
    for n in (0, -1, True):
        with pytest.raises(InputError, match=unit):
            dataset(reader, name, n=n)
    with pytest.raises(InputError, match="have no option 'colour'"):
        dataset(reader, name, colour="red")
    with pytest.raises(InputError, match="no split 'test'"):
        dataset(reader, name, split="test")


@pytest.mark.parametrize("name", ["antecedent", "capital", "previous_token", "subject_number", "truth"])
def test_there_are_so_many_and_no_more(name: str, reader: HookedTransformer) -> None:
    with pytest.raises(InputError, match=r"[Aa]sk for"):
        dataset(reader, name, n=100_000)


def test_an_unknown_name_is_answered_with_the_names_there_are(reader: HookedTransformer) -> None:
    with pytest.raises(InputError, match=r"no labels called 'agremeent'.*subject_number.*the tasks coreference"):
        dataset(reader, "agremeent")


def test_labels_of_words_need_a_tokenizer_and_those_of_decoders_a_decoder() -> None:
    with pytest.raises(InputError, match="no tokenizer"):
        dataset(model_of("llama"), "truth")
    with pytest.raises(InputError, match="causal decoders"):
        dataset(model_of("encoder"), "subject_number")


def test_a_name_brings_its_own_labels_and_positions(reader: HookedTransformer) -> None:
    with pytest.raises(InputError, match="its own"):
        dataset(reader, "truth", positions="last")


def test_tasks_map_to_their_label_sets(drawn: Any) -> None:
    tasks = {one.task: name for name, one in label_sets().items() if one.task}
    assert tasks == {"agreement": "subject_number", "coreference": "antecedent", "fact_recall": "capital"}
    assert tasks.keys() <= definitions().keys()
    assert all(label_set(task).name == name for task, name in tasks.items())
    assert drawn("agreement").table.equals(drawn("subject_number").table)


# ---- subject number ----


def test_neither_subjects_nor_attractors_of_one_group_stand_in_another(drawn: Any) -> None:
    table = drawn("subject_number", n=20).table
    noun = {word: two[0] for two in (*PEOPLE, *THINGS) for word in two}
    groups = defaultdict(set)
    for column in ("subject", "attractor"):
        for word, group in zip(table[column], table["group"], strict=True):
            groups[noun.get(word, "")].add(group)
    groups.pop("")  # sentences without an attractor
    assert all(len(some) == 1 for some in groups.values()) and len(set().union(*groups.values())) == 40
    assert kept_apart(table, "type"), "what the control task goes by stands in one group"


def test_number_is_read_at_the_nouns_and_before_the_verb(drawn: Any) -> None:
    found = drawn("subject_number")
    table, labels = found.table, found.labels
    noun = {
        word: number for two in (*PEOPLE, *THINGS) for word, number in zip(two, ("singular", "plural"), strict=True)
    }
    for where, target in (("subject", "subject number"), ("attractor", "attractor number")):
        mine = (table["where"] == where).to_numpy()
        assert [noun[word] for word in table["type"][mine]] == labels[target][mine].tolist()
        assert table["token"][mine].str.strip().equals(table["type"][mine])
    assert [noun[word] for word in table["subject"]] == labels["subject number"].tolist(), "at every row"
    late = table[table["where"] == "before verb"]
    assert late["type"].tolist() == late["subject"].tolist() and set(late["token"].str.strip()).isdisjoint(late["type"])
    last = table.groupby("text")["pos"].transform("max") == table["pos"]
    assert ((table["where"] == "before verb") == last).all()
    early, none = table["where"] == "subject", table["congruence"] == "no attractor"
    assert (labels["attractor number"].isna() == (early | none)).all()
    assert set(table["where"][none]) == {"subject", "before verb"}


def test_the_numbers_of_subject_and_attractor_are_balanced_and_independent(drawn: Any) -> None:
    found = drawn("subject_number")
    counts = found.labels[found.table["where"] == "attractor"].value_counts()
    assert len(counts) == 4 and counts.nunique() == 1


def test_a_drawn_task_is_labelled_as_the_set_is(reader: HookedTransformer) -> None:
    task = interp.tasks.load("agreement", reader, n=3)
    found = dataset(reader, task, sites="resid_pre.0")
    noun = {word: two[0] for two in (*PEOPLE, *THINGS) for word in two}
    number = {word: k for two in (*PEOPLE, *THINGS) for word, k in zip(two, ("singular", "plural"), strict=True)}
    at = (found.table["where"] == "attractor").to_numpy()
    assert [number[word] for word in found.table["type"][at]] == found.labels["attractor number"][at].tolist()
    groups = defaultdict(set)
    for column in ("subject", "attractor"):
        for word, group in zip(found.table[column], found.table["group"], strict=True):
            groups[noun.get(word, "")].add(group)
    groups.pop("")
    assert all(len(some) == 1 for some in groups.values())


def test_a_task_whose_nouns_all_hang_together_is_refused(reader: HookedTransformer) -> None:
    task = interp.tasks.load("agreement", reader, n=60)
    with pytest.raises(InputError, match="no split would hold out many nouns"):
        dataset(reader, task)


# ---- antecedent ----


def test_the_position_of_the_antecedent_cannot_be_told_from_names_or_pronoun(drawn: Any) -> None:
    found = drawn("antecedent")
    table, labels = found.table, found.labels
    pronoun = table[table["where"] == "pronoun"]
    female = pronoun["token"].str.strip().isin(["Her", "She"])
    assert (female == (labels["antecedent gender"][pronoun.index] == "female")).all()
    joined = pd.concat([table, labels], axis=1)
    for column in ("antecedent gender", "antecedent", "template"):
        shares = joined.groupby(column)["antecedent position"].value_counts().unstack()
        assert (shares["first"] == shares["second"]).all()
    assert (
        (table["type"] == table["antecedent"]).all()
        and kept_apart(table, "antecedent")
        and set(table["where"]) == {"pronoun", "last"}
    )


def test_prompts_of_coreference_are_labelled_too(reader: HookedTransformer) -> None:
    task = interp.tasks.load("coreference", reader, n=2)
    found = dataset(reader, task, sites="resid_pre.0")
    at = found.table["where"] == "pronoun"
    assert found.labels["antecedent position"][at].tolist() == list(task.labels["antecedent_place"])
    assert set(found.labels["antecedent gender"]) == {"female", "male"}
    assert found.table["type"][at].tolist() == list(task.labels["antecedent"])


# ---- capital and truth ----


def test_a_capital_is_grouped_by_template_and_a_continent_by_country(drawn: Any) -> None:
    capital, continent = drawn("capital"), drawn("capital", relation="continent")
    assert capital.targets == ("capital",) and continent.targets == ("continent",)
    assert capital.table["group"].equals(capital.table["template"].rename("group"))
    per_group = capital.labels.groupby(capital.table["group"])["capital"].nunique()
    assert (per_group == capital.labels["capital"].nunique()).all(), "every class is in every template"
    assert kept_apart(continent.table, "country")
    table = capital.table[capital.table["where"] == "country"]
    ends = [name.endswith(piece.strip()) for name, piece in zip(table["country"], table["token"], strict=True)]
    starts = [name.startswith(piece.strip()) for name, piece in zip(table["country"], table["token"], strict=True)]
    assert all(ends) and not all(starts), "the last token of a name of several"
    with pytest.raises(InputError, match="relation='colour'"):
        drawn("capital", relation="colour")


def test_drawn_facts_are_labelled_by_relation(reader: HookedTransformer) -> None:
    task = interp.tasks.load("fact_recall", reader, n=3, keep_unknown=True)
    found = dataset(reader, task, sites="resid_pre.0")
    assert set(found.targets) == {"capital", "language", "continent"}
    last = found.table["where"] == "last"
    assert found.labels[last].bfill(axis=1).iloc[:, 0].tolist() == list(task.labels["answer"])
    assert (found.labels.notna().sum(axis=1) == 1).all() and kept_apart(found.table, "template")


def test_countries_and_cities_are_as_often_in_true_statements_as_in_false_ones(drawn: Any) -> None:
    found = drawn("truth", n=10)
    joined = pd.concat([found.table, found.labels], axis=1)
    for column in ("country", "city", "template", "group"):
        shares = joined.groupby(column)["truth"].value_counts().unstack()
        assert (shares["true"] == shares["false"]).all()
    assert kept_apart(found.table, "country") and kept_apart(found.table, "city")
    assert set(found.table["token"]) == {"."} and set(joined["type"]) == set(joined["city"])
    from interp.tasks.countries import countries

    capitals = {one.name: one.answers.get("capital") for one in countries()}
    right = [capitals[country] == city for country, city in zip(joined["country"], joined["city"], strict=True)]
    assert right == (joined["truth"] == "true").tolist()


# ---- words of sentences ----


def test_words_are_read_at_their_last_token_or_their_first(drawn: Any, reader: HookedTransformer) -> None:
    last, first = drawn("part_of_speech", n=12), drawn("part_of_speech", n=12, subword="first")
    assert last.labels.equals(first.labels) and last.table["type"].equals(first.table["type"])
    assert (last.table["pos"] >= first.table["pos"]).all() and (last.table["pos"] > first.table["pos"]).any()
    ends = [
        word.endswith(piece.strip().lower())
        for word, piece in zip(last.table["type"], last.table["token"], strict=True)
    ]
    starts = [
        word.startswith(piece.strip().lower())
        for word, piece in zip(first.table["type"], first.table["token"], strict=True)
    ]
    assert all(ends) and all(starts)
    with pytest.raises(InputError, match="no end of a word"):
        drawn("part_of_speech", subword="middle")


def test_parts_of_speech_and_relations_are_those_of_the_sentences(drawn: Any) -> None:
    pos, relation = drawn("part_of_speech", n=20), drawn("dependency", n=20)
    tags = pd.concat([pos.table, pos.labels], axis=1)
    assert set(tags[tags["type"] == "the"]["part of speech"]) == {"DET"} and "PUNCT" not in set(tags["part of speech"])
    arcs = pd.concat([relation.table, relation.labels], axis=1)
    assert set(arcs[arcs["type"] == "the"]["dependency relation"]) == {"det"}
    assert {"nsubj", "obj", "case", "amod"} <= set(arcs["dependency relation"])
    assert not {"root", "punct", ""} & set(arcs["dependency relation"]) and kept_apart(relation.table, "type")


CONLLU = """# text = Dogs don't bark.
1\tDogs\tdog\tNOUN\t_\t_\t4\tnsubj\t_\t_
2-3\tdon't\t_\t_\t_\t_\t_\t_\t_\t_
2\tdo\tdo\tAUX\t_\t_\t4\taux\t_\t_
3\tn't\tnot\tPART\t_\t_\t4\tadvmod\t_\t_
4\tbark\tbark\tVERB\t_\t_\t0\troot\t_\tSpaceAfter=No
5\t.\t.\tPUNCT\t_\t_\t4\tpunct\t_\t_

# text = Old cats sleep.
1\tOld\told\tADJ\t_\t_\t2\tamod\t_\t_
2\tcats\tcat\tNOUN\t_\t_\t3\tnsubj\t_\t_
3\tsleep\tsleep\tVERB\t_\t_\t0\troot\t_\tSpaceAfter=No
4\t.\t.\tPUNCT\t_\t_\t3\tpunct\t_\t_
"""


@pytest.fixture
def treebank(tmp_path: Path) -> Path:
    (tmp_path / "some.conllu").write_text(CONLLU)
    return tmp_path / "some.conllu"


def test_the_users_sentences_are_read_from_conllu(reader: HookedTransformer, treebank: Path) -> None:
    found = dataset(reader, "part_of_speech", corpus=str(treebank), sites="resid_pre.0")
    tags = dict(zip(found.table["type"], found.labels["part of speech"], strict=True))
    assert tags["cats"] == "NOUN" and tags["sleep"] == "VERB" and tags["dogs"] == "NOUN"
    assert found.about["from"] == "CoNLL-U" and found.about["left_out"]["words without a token"] == 1
    tree = dataset(reader, "dependency_tree", corpus=str(treebank), sites="resid_pre.0")
    assert tree.table["type"].tolist() == ["old", "cats", "sleep", "."], "a sentence with a lost word has no whole tree"
    assert tree.labels["tree depth"].tolist() == [2, 1, 0, 1] and tree.table["head"].tolist() == [1, 2, -1, 2]


def test_raw_text_is_parsed_where_spacy_is_installed(reader: HookedTransformer, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("The old dog sleeps near the door. A cat sees two birds.")
    if can_parse():
        found = dataset(reader, "part_of_speech", corpus=str(tmp_path / "a.txt"), sites="resid_pre.0")
        assert "NOUN" in set(found.labels["part of speech"])
    else:
        with pytest.raises(InputError, match="spaCy"):
            dataset(reader, "part_of_speech", corpus=str(tmp_path / "a.txt"))


def test_trees_have_whole_sentences_with_heads_among_their_words(drawn: Any) -> None:
    found = drawn("dependency_tree")
    assert found.table["group"].equals(found.table["sentence"].rename("group"))
    for name, some in found.table.groupby("sentence", sort=False):
        heads = some["head"].tolist()
        assert some["word"].tolist() == list(range(len(some))), name
        np.testing.assert_array_equal(tree_depths(heads), found.labels["tree depth"][some.index])
        assert tree_distances(heads).shape == (len(some), len(some))


def test_distances_in_a_tree_are_steps_along_its_arcs() -> None:
    import networkx as nx

    heads = [1, -1, 1, 5, 5, 1, 3, 6]
    graph = nx.Graph([(word, head) for word, head in enumerate(heads) if head >= 0])
    lengths = dict(nx.all_pairs_shortest_path_length(graph))
    expected = [[lengths[a][b] for b in range(len(heads))] for a in range(len(heads))]
    np.testing.assert_array_equal(tree_distances(heads), expected)
    np.testing.assert_array_equal(tree_depths(heads), expected[1])
    assert tree_distances([-1]).tolist() == [[0]]


@pytest.mark.parametrize("heads", [[], [0], [-1, -1], [1, 0], [-1, 2, 1], [-1, 5], [-1, -2]])
def test_what_is_no_tree_is_refused(heads: list[int]) -> None:
    for function in (tree_distances, tree_depths):
        with pytest.raises(InputError, match="no tree"):
            function(heads)


# ---- previous token ----


def test_the_previous_token_is_the_one_before(drawn: Any, reader: HookedTransformer) -> None:
    found = drawn("previous_token", k=5)
    assert set(found.labels["previous token"]) <= set(found.about["classes"]) and len(found.about["classes"]) == 5
    after = found.table.assign(label=found.labels["previous token"])
    beside = [
        (label, repr(after["token"][i - 1]))
        for i, label in enumerate(after["label"])
        if i and after["text"][i - 1] == after["text"][i] and after["pos"][i - 1] == after["pos"][i] - 1
    ]
    assert beside and all(label == before for label, before in beside)
    assert kept_apart(found.table, "type")
    with pytest.raises(InputError, match="at least 2 classes"):
        drawn("previous_token", k=1)


# ---- planted sanity: what the token itself gives away is in the embedding layer, what has to be resolved is not ----


def nearest(found: Any, rows: np.ndarray, target: str) -> float:
    """Accuracy of the label of the nearest row of other groups, every other group held out."""
    x, y = found.rows(found.places[0])[rows], found.labels[target].to_numpy()[rows]
    groups = found.table["group"].to_numpy()[rows]
    held = np.isin(groups, sorted(set(groups))[::2])
    distances = ((x[held][:, None] - x[~held]) ** 2).sum(axis=-1)
    return float((y[~held][distances.argmin(axis=1)] == y[held]).mean())


def test_the_embedding_layer_gives_the_pronouns_gender_away_and_no_more(drawn: Any) -> None:
    found = drawn("antecedent")
    at = (found.table["where"] == "pronoun").to_numpy()
    assert nearest(found, at, "antecedent gender") == 1.0
    assert nearest(found, at, "antecedent position") == 0.5


def test_the_embedding_layer_knows_no_truth_and_no_subject_before_the_verb(drawn: Any) -> None:
    truth, number = drawn("truth", n=10), drawn("subject_number")
    assert nearest(truth, np.ones(len(truth), bool), "truth") == 0.5
    at = ((number.table["where"] == "before verb") & (number.table["condition"] != "object relative")).to_numpy()
    assert nearest(number, at, "subject number") == 0.5


@pytest.mark.parametrize("layout", ["encoder", "two_stacks"])
def test_models_that_read_both_ways_read_every_other_label_set(layout: str, readers: Any) -> None:
    model = readers(layout)
    for name in SETS:
        options = {"n_tokens": 32} if name == "previous_token" else {}
        if name == "subject_number":
            with pytest.raises(InputError, match="causal decoders"):
                dataset(model, name)
            continue
        found = dataset(model, name, n=3, **options)
        n_layers = model.encoder.config.n_layers
        assert len(found.activations) == n_layers + 1 and (found.about["stack"] == "encoder") == (
            layout == "two_stacks"
        )
    whole = dataset(model, "antecedent", n=1, sites="resid_pre.0").table
    ends = whole[whole["where"] == "last"]["token"]
    assert ends.str.contains(".", regex=False).all(), "whole sentences"


@pytest.fixture(scope="module")
def minilm() -> Iterator[HookedTransformer]:
    yield interp.load("minilm-l6")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SETS if name != "subject_number"])
def test_an_encoder_reads_every_label_set_of_words(name: str, minilm: HookedTransformer) -> None:
    found = dataset(minilm, name, n=3, sites=["resid", "z"])
    assert len(found.activations) == 13 and len(found) > 5
    if name in ("truth", "part_of_speech"):
        pieces = found.table["token"].str.replace("##", "").str.lower()
        whole = found.table["type"].str.lower()
        assert all(piece in word or piece == "." for piece, word in zip(pieces, whole, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_smollm2_reads_every_label_set(name: str, smollm2: HookedTransformer) -> None:
    found = dataset(smollm2, name, n=2, split="select")
    assert len(found.places) == 31 and all(np.isfinite(x).all() for x in found.activations.values())
