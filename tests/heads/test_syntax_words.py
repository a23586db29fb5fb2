"""Sentences that are drawn with their trees, sentences in tokens, and where sentences come from."""

from __future__ import annotations

from collections import Counter

import pytest

import interp
from interp.errors import InputError
from interp.heads.syntax_corpus import halves_of, is_parsed, written_sentences
from interp.heads.syntax_grammar import FRAMES, drawn_sentences
from interp.heads.syntax_words import DIRECTIONS, LabelledTokens, labelled, links, relation_of, role_of
from interp.readers.conllu import ParsedSentence, Word, read_conllu
from tests.heads.syntax_models import reader, word_tokenizer

CONTENT = ("NOUN", "VERB", "ADJ", "PROPN")


def arcs_of(sentence: ParsedSentence) -> set[tuple[str, str, str]]:
    words = sentence.words
    return {(w.deprel or "", w.form.lower(), words[w.head - 1].form.lower()) for w in words if w.head}


def as_conllu(sentences) -> str:
    rows = []
    for one in sentences:
        rows.append(f"# text = {one.text}")
        for word in one.words:
            rows.append(f"{word.id}\t{word.form}\t_\t{word.upos}\t_\t_\t{word.head}\t{word.deprel}\t_\t_")
        rows.append("")
    return "\n".join(rows)


def test_every_drawn_sentence_is_a_tree_that_the_reader_accepts_and_its_text_holds_its_words(tmp_path):
    drawn = drawn_sentences(2 * len(FRAMES), "select", 3)
    path = tmp_path / "drawn.conllu"
    path.write_text(as_conllu(drawn), encoding="utf-8")
    again = read_conllu(path)
    assert [one.text for one in again] == [one.text for one in drawn]
    for one, read in zip(drawn, again, strict=True):
        assert arcs_of(one) == arcs_of(read) and len(read.spans) == len(one.words)
        assert one.text[0].isupper() and one.text[-1] in ".?" and " ," not in one.text


def test_drawn_trees_are_right_where_a_string_says_what_is_right():
    """Adjectives stand before their noun, prepositions before theirs, a determiner begins its phrase."""
    for one in drawn_sentences(120, "report", 1):
        for number, word in enumerate(one.words, start=1):
            head = one.words[(word.head or 1) - 1]
            if word.deprel in ("amod", "nummod", "det", "compound", "nmod:poss"):
                between = one.words[number : int(head.id) - 1]
                assert head.upos == "NOUN" and int(head.id) > number, one.text
                assert all(w.upos in ("ADJ", "ADV", "NUM", "NOUN", "PART") for w in between), one.text
            if word.deprel == "case" and word.form != "'s":
                assert int(head.id) > number and head.deprel in ("obl", "nmod"), one.text
            if word.deprel == "nsubj" and word.upos != "PRON" and head.upos == "VERB":
                assert not any(w.deprel == "nsubj" and w.head == word.head and w is not word for w in one.words)


def test_both_splits_have_words_of_their_own_and_the_same_frames():
    halves = {split: drawn_sentences(200, split, 0) for split in ("select", "report")}
    content = {}
    for split, some in halves.items():
        words = {w.form.lower() for one in some for w in one.words if w.upos in CONTENT and w.deprel != "root"}
        content[split] = {word.removesuffix("s") for word in words}
    closed = {"said", "thought", "believed", "noticed", "claimed", "remembered"}
    assert not (content["select"] & content["report"]) - closed
    frames = {split: Counter(one.path.partition(", ")[2] for one in some) for split, some in halves.items()}
    assert frames["select"].keys() == frames["report"].keys() and len(frames["select"]) == len(FRAMES) >= 20


def test_the_same_seed_draws_the_same_sentences_and_more_begin_with_fewer():
    texts = [one.text for one in drawn_sentences(60, "select", 4)]
    assert texts == [one.text for one in drawn_sentences(90, "select", 4)][:60] and len(set(texts)) == 60
    assert texts != [one.text for one in drawn_sentences(60, "select", 5)]


def test_written_sentences_are_whole_trees_with_all_the_common_relations():
    written = written_sentences()
    assert len(written) >= 40 and all(one.has_tree and one.spans for one in written)
    found = Counter(relation_of(word.deprel) for one in written for word in one.words)
    assert all(found[name] >= 5 for name in ("nsubj", "obj", "det", "amod", "obl", "nmod", "case", "advmod", "aux"))


def parsed(*rows: tuple[str, int, str], text: str = "") -> ParsedSentence:
    words = [
        Word(str(i), form, None, None, None, None, head, rel, None, None, i)
        for i, (form, head, rel) in enumerate(rows, 1)
    ]
    return ParsedSentence(tuple(words), comments={"text": text} if text else {})


def test_tokens_belong_to_the_word_they_share_most_characters_with(smollm2):
    minilm = interp.load("minilm-l6")
    one = parsed(
        ("Émile", 3, "nsubj"), ("did", 3, "aux"), ("n't", 4, "advmod"), ("sleep", 0, "root"), text="Émile didn't sleep"
    )
    for tokenizer, bos in ((smollm2.tokenizer, True), (smollm2.tokenizer, False), (minilm.tokenizer, None)):
        row = labelled(one, tokenizer, bos=bos)
        row.must_fit()
        joined = ["".join(tokenizer.str_tokens([row.tokens[i] for i in word])).strip() for word in row.words]
        assert joined[-1] == "sleep" and joined[1] in ("didn", "did") and joined[2] in ("'t", "n't")
        special = len(row.tokens) - sum(map(len, row.words))
        assert special == {True: 1, False: 0, None: 2}[bos]


def test_words_written_as_one_keep_the_first_and_lose_the_arcs_of_the_second():
    words = [("de", 0, "root"), ("el", 1, "det"), ("barco", 1, "obj")]
    from interp.readers.conllu import Range

    base = parsed(*words)
    one = ParsedSentence(base.words, (Range(1, 2, "del", None),), comments={"text": "del barco"})
    row = labelled(one, word_tokenizer(), bos=False)
    assert row.words == ((0,), (), (1,)) and row.arcs == (("obj", 2, 0),)


def test_labels_of_other_schemes_and_subtypes_become_one_relation():
    names = {
        "dobj": "obj",
        "nsubj:outer": "nsubj",
        "nsubj:pass": "nsubj:pass",
        "relcl": "acl:relcl",
        "poss": "nmod:poss",
    }
    assert {name: relation_of(name) for name in names} == names
    assert [relation_of(one) for one in ("punct", "root", "dep", None)] == [""] * 4
    assert role_of("nsubj", DIRECTIONS[0]) == "nsubj: verb → subject"
    assert role_of("case", DIRECTIONS[1]) == "case: preposition → noun" and role_of("x", DIRECTIONS[0]).startswith(
        "x: head"
    )


def test_a_decoder_has_links_to_earlier_words_only():
    arcs = [("obj", 4, 2), ("nsubj", 0, 2), ("amod", 3, 4), ("obj", 1, 2)]
    both = {(one.relation, one.direction, one.word): set(one.partners) for one in links(arcs, causal=False)}
    assert both["obj", DIRECTIONS[0], 2] == {1, 4} and both["obj", DIRECTIONS[1], 4] == {2} and len(both) == 7
    seen = {(one.relation, one.direction, one.word): set(one.partners) for one in links(arcs, causal=True)}
    assert seen == {
        ("nsubj", DIRECTIONS[0], 2): {0},
        ("obj", DIRECTIONS[0], 2): {1},
        ("obj", DIRECTIONS[1], 4): {2},
        ("amod", DIRECTIONS[0], 4): {3},
    }


@pytest.mark.parametrize(
    ("words", "arcs", "says"),
    [
        (((1,), (9,)), (), "Word 1 has the tokens"),
        (((1,), (1, 2)), (), "tokens of an earlier word"),
        (((1,), (2,)), (("r", 0, 2),), "words count from 0 to 1"),
        (((1,), (2,)), (("r", 1, 1),), "no word depends on itself"),
    ],
)
def test_rows_that_contradict_themselves_are_refused(words, arcs, says):
    with pytest.raises(InputError, match=says):
        LabelledTokens((5, 6, 7), words, arcs).must_fit()


def asked(**options):
    return {"n": 4, "n_kinds": 1, "alpha": 0.05, "seed": 0, **options}


def test_the_sample_has_a_half_to_choose_by_and_one_to_report_on():
    halves = halves_of(reader(), None, **asked())
    assert len(halves.select) == len(halves.report) == len(halves.bare) == 32
    assert all(
        len(a.tokens) == len(b.tokens) + 1 and a.arcs == b.arcs for a, b in zip(halves.report, halves.bare, strict=True)
    )
    assert not {one.tokens for one in halves.select} & {one.tokens for one in halves.report}
    assert not halves_of(reader("encoder"), None, **asked()).bare, "an encoder's frame is not taken off"
    assert not halves_of(reader(bos=False), None, **asked()).bare


def test_conllu_files_and_folders_are_read_and_sentences_without_a_tree_left_out(tmp_path):
    some = drawn_sentences(40, "select", 0)
    (tmp_path / "a.conllu").write_text(as_conllu(some[:30]), encoding="utf-8")
    untold = "1\tNo\t_\t_\t_\t_\t_\t_\t_\t_\n2\ttree\t_\t_\t_\t_\t_\t_\t_\t_\n\n"
    (tmp_path / "b.CONLLU").write_text(untold + as_conllu(some[30:]), encoding="utf-8")
    assert is_parsed(tmp_path) and is_parsed([tmp_path / "a.conllu"]) and not is_parsed(tmp_path / "a.txt")
    halves = halves_of(reader(), tmp_path, **asked())
    assert len(halves.select) == len(halves.report) == 20 and "a.conllu" in halves.about["from"]


def test_sentences_longer_than_the_context_are_left_out_and_counted(tmp_path):
    long = parsed(*[("boat", i, "root" if i == 0 else "conj") for i in range(140)])
    (tmp_path / "a.conllu").write_text(as_conllu([*drawn_sentences(40, "select", 0), long]), encoding="utf-8")
    counts = {
        halves_of(reader(), tmp_path / "a.conllu", **asked(n=9, seed=s)).about["too long for the model"]
        for s in range(4)
    }
    assert counts == {1}


def test_too_few_sentences_to_reject_anything_are_refused(tmp_path):
    (tmp_path / "a.conllu").write_text(as_conllu(drawn_sentences(8, "select", 0)), encoding="utf-8")
    with pytest.raises(InputError, match=r"There are 4 sentences for either half; .* 0\.0625, above alpha=0\.05"):
        halves_of(reader(), tmp_path / "a.conllu", **asked())
