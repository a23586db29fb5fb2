"""Pairs align or are refused with the pair shown; text, ids and tables come to the same; names find their tokens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer as Backend
from tokenizers import models, normalizers, pre_tokenizers, processors

from interp.errors import InputError
from interp.model.config import BlockConfig, MLPConfig, ModelConfig, NormConfig, StackConfig
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.text import Tokenizer

WORDS = ["<pad>", "<s>", "</s>", "[UNK]", "[MASK]", "the", "capital", "of", "France", "Italy", "Spain", "is"]
WORDS += ["Paris", "Rome", "Madrid", "it"]
ID = {word: i for i, word in enumerate(WORDS)}
FRANCE, ITALY = "The capital of France is", "The capital of Italy is"


def tokenizer(*, framed: bool = False) -> Tokenizer:
    backend = Backend(models.WordLevel(ID, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(WORDS[:3])
    if framed:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    return Tokenizer(backend, add_bos=framed, bos_id=1, eos_id=2, pad_id=0, unk_id=3, add_eos=framed)


def sized(**stacks) -> ModelConfig:
    return ModelConfig(d_model=8, d_vocab=len(WORDS), n_ctx=12, **stacks)


ONE = ModelConfig.decoder_only(n_layers=1, d_model=8, n_heads=2, d_vocab=len(WORDS), n_ctx=12)
ATTN = ONE.decoder.blocks[0].attn
BOTH = replace(ATTN, mask="bidirectional", rotary=None)
ENCODER = StackConfig((BlockConfig(BOTH, MLPConfig(8), NormConfig()),), learned_positions=12)
CROSS = StackConfig((BlockConfig(ATTN, MLPConfig(8), NormConfig(), cross_attn=BOTH),))


@pytest.fixture(scope="module")
def reader() -> HookedTransformer:
    return HookedTransformer(ONE, tokenizer())


@pytest.fixture(scope="module")
def encoder() -> HookedTransformer:
    model = HookedTransformer(sized(encoder=ENCODER), tokenizer(framed=True))
    model.tokenizer.mask_id = ID["[MASK]"]
    return model


@pytest.fixture(scope="module")
def two_stacks() -> HookedTransformer:
    return HookedTransformer(sized(encoder=ENCODER, decoder=CROSS), tokenizer(framed=True))


def pieces(model, pairs: PromptPairs, name: str, pair: int = 0) -> list[str]:
    return [pairs.aligned(pair)[i][0] for i in pairs.span(name, pair)]


# ---- text ----


def test_text_becomes_the_tokens_the_model_reads(smollm2):
    pairs = PromptPairs.from_text(smollm2, [FRANCE], [ITALY], ["Paris"], ["Rome"])
    assert pairs.clean == (tuple(smollm2.to_tokens(FRANCE)[0].tolist()),)
    assert pairs.corrupt == (tuple(smollm2.to_tokens(ITALY)[0].tolist()),)
    with_bos = PromptPairs.from_text(smollm2, FRANCE, ITALY, "Paris", prepend_bos=True, positions={"x": "France"})
    assert with_bos.clean[0] == (smollm2.tokenizer.bos_id, *pairs.clean[0])
    assert with_bos.span("x", 0) == (4,)
    assert (pairs.read, with_bos.read, pairs.first_difference) == ((4,), (5,), (3,))


def test_an_answer_behind_a_word_gets_its_space_and_shows_it(smollm2):
    pairs = PromptPairs.from_text(smollm2, FRANCE, ITALY, "Paris", " Rome")
    assert pairs.answer == (((smollm2.to_single_token(" Paris"),),),)
    assert pairs.foil == (((smollm2.to_single_token(" Rome"),),),)
    assert "answer: ' Paris'" in pairs.show(0)


@pytest.mark.parametrize(
    ("prompt", "given", "taken"),
    [
        (FRANCE + " ", "Paris", ["Paris"]),
        ("She said:\n", "Yes", ["Yes"]),
        ("2 + 2 =", "4", ["4"]),
        (FRANCE, "\nParis", ["\n", "Paris"]),
        (FRANCE, "Tirana", [" Tir", "ana"]),
        (FRANCE, " Paris", [" Paris"]),
    ],
)
def test_no_space_is_put_where_one_stands_or_where_it_would_be_a_token_of_its_own(smollm2, prompt, given, taken):
    pairs = PromptPairs.from_text(smollm2, prompt, prompt, given)
    assert smollm2.tokenizer.str_tokens(pairs.answer[0][0]) == taken


def test_the_text_before_an_answer_ends_where_it_is_read(smollm2):
    prompt = "It is \nParis ."
    n = len(smollm2.tokenizer.encode(prompt))
    taken = [PromptPairs.from_text(smollm2, prompt, prompt, "Rome", read=at).answer[0][0] for at in range(n)]
    shown = [smollm2.tokenizer.decode(one) for one in taken]
    ends = [smollm2.tokenizer.decode(smollm2.tokenizer.encode(prompt)[: at + 1]) for at in range(n)]
    assert shown == ["Rome" if end[-1].isspace() else " Rome" for end in ends] and "Rome" in shown


def test_text_that_ends_in_white_space_no_token_holds_still_ends_in_it():
    model = HookedTransformer(ModelConfig.decoder_only(n_layers=1, d_model=8, n_heads=2, d_vocab=4, n_ctx=12))
    backend = Backend(models.WordLevel({"a": 0, " b": 1, "b": 2, "[UNK]": 3}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_next")
    model.tokenizer = Tokenizer(backend, add_bos=False, bos_id=None, eos_id=None, pad_id=None, unk_id=3)
    assert PromptPairs.from_text(model, "a", "b", "b").answer == (((1,),),)
    backend.normalizer = normalizers.Strip(left=False, right=True)
    assert PromptPairs.from_text(model, "a ", "b ", "b").answer == (((2,),),)


def test_answers_may_be_ids_sets_and_tokens_in_order(smollm2):
    one, two = smollm2.to_single_token(" Paris"), smollm2.to_single_token("Paris")
    pairs = PromptPairs.from_text(smollm2, [FRANCE] * 4, [ITALY] * 4, [two, ["Paris", two], (one, two), ["Paris", one]])
    assert pairs.answer == (((two,),), ((one,), (two,)), ((one, two),), ((one,),))


def test_one_answer_serves_all_pairs(reader):
    pairs = PromptPairs.from_text(reader, ["the capital of France is"] * 2, ["the capital of Italy is"] * 2, "Paris")
    assert pairs.answer == (((ID["Paris"],),),) * 2


def test_rows_may_differ_in_length_between_pairs(reader):
    pairs = PromptPairs.from_text(
        reader, ["France is", "it is the"], ["Italy is", "it is of"], "Paris", items=["a", "b"]
    )
    assert (pairs.read, pairs.first_difference, pairs.items) == ((1, 2), (0, 2), ("a", "b"))
    assert len(pairs) == 2 and [one.items for one in pairs] == [("a",), ("b",)]


def test_prompts_that_are_the_same_differ_nowhere(reader):
    assert PromptPairs.from_text(reader, "it is", "it is", "Paris").first_difference == (2,)


def test_a_misaligned_pair_is_refused_with_both_shown_token_by_token(smollm2):
    with pytest.raises(InputError, match=r"Pair 1: the clean prompt has 10 tokens and the corrupt one 5") as caught:
        PromptPairs.from_text(smollm2, [FRANCE, "The capital of Ouagadougou is"], [ITALY, ITALY], "Paris")
    lines = str(caught.value).splitlines()[1:]
    assert lines[4].split() == ["3", "'", "O'", "'", "Italy'", "<-", "first", "difference"]
    assert lines[6].split() == ["5", "'ad'", "–"]
    assert sum("first difference" in line for line in lines) == 1 and len(lines) == 11


# ---- named positions ----

ACCENTS = "Zoë saw 🙂 and 👩‍👩‍👧 in 日本 today, naïve"


@pytest.mark.parametrize("part", ["🙂", "👩‍👩‍👧", "日本", "日", "Zoë", "ë", "naïve", "saw", "today", ","])
def test_a_named_part_is_exactly_its_tokens_whatever_the_script(smollm2, part):
    pairs = PromptPairs.from_text(smollm2, ACCENTS, ACCENTS, "x", positions={"part": part})
    row, span = pairs.clean[0], pairs.span("part", 0)
    assert span == tuple(range(span[0], span[-1] + 1))
    decode = smollm2.tokenizer.decode
    assert part in decode([row[i] for i in span])
    for fewer in (span[1:], span[:-1]):
        assert part not in decode([row[i] for i in fewer]), "a token that does not belong"


def test_the_space_in_front_of_a_word_pulls_no_neighbour_in(smollm2):
    places = {"word": "France", "spaced": " France ", "chars": (14, 22), "space": (14, 15)}
    pairs = PromptPairs.from_text(smollm2, FRANCE, ITALY, "Paris", positions=places)
    assert all(pieces(smollm2, pairs, name) == [" France"] for name in places)


def test_places_may_be_text_characters_indices_and_lists_for_all_or_each(reader):
    clean, corrupt = ["the capital of France is", "it is Spain"], ["the capital of Italy is", "it is Italy"]
    places = {
        "subject": ["France", "Spain"],
        "mixed": [(0, 11), -1],
        "last": -1,
        "first": (0, 2),
        "each": [1, 2],
        "lists": [[2, 0, 0], [1]],
        "all": [2, 1, 0],
    }
    pairs = PromptPairs.from_text(reader, clean, corrupt, "Paris", positions=places)
    assert dict(pairs.positions) == {
        "subject": ((3,), (2,)),
        "mixed": ((0, 1), (2,)),
        "last": ((4,), (2,)),
        "first": ((0,), (0,)),
        "each": ((1,), (2,)),
        "lists": ((0, 2), (1,)),
        "all": ((0, 1, 2), (0, 1, 2)),
    }
    assert pairs.span("mixed:first", 0) == (0,) and pairs.span("mixed:last", 0) == (1,)
    assert pairs.span("mixed", -1) == (2,)


@pytest.mark.parametrize(
    ("places", "message"),
    [
        (
            {"s": "Peru"},
            r"Pair 0: position 's', 'Peru', stands 0 times in the clean text 'the capital.*characters \(st",
        ),
        ({"s": "a"}, r"'a', stands 3 times in the clean text, at characters \(5, 6\), \(9, 10\), \(17, 18\).*Give the"),
        ({"s": ""}, r"stands 0 times"),
        ({"s": (3, 3)}, r"characters \(3, 3\), but the clean text has 24.*list \[index"),
        ({"s": (20, 30)}, r"characters \(20, 30\), but the clean text has 24"),
        ({"s": (3, 4)}, r"position 's', ' ', is in no token.*token index"),
        ({"s": 5}, r"position 's' is 5, but the text has 5 tokens: 0 to 4"),
        ({"s": [1, -6]}, r"position 's' is -6, but the text has 5 tokens"),
        ({"s": 1.5}, r"position 's' is 1\.5\. Give a substring, characters"),
        ({"s": ["France", "Italy"]}, r"positions\['s'\] has 2 places for 1 pairs"),
        ({"s:last": 1}, r"named 's:last'\. Use words without a colon"),
        (["France"], r"positions is \['France'\]\. Give names with places"),
    ],
)
def test_a_place_that_is_none_or_several_is_refused(reader, places, message):
    with pytest.raises(InputError, match=message):
        PromptPairs.from_text(reader, "the capital of France is", "the capital of Italy is", "Paris", positions=places)


def test_asking_for_an_unknown_name_or_part_says_what_there_is(reader):
    pairs = PromptPairs.from_text(reader, "it is", "it is", "Paris", positions={"pronoun": 0, "verb": 1})
    with pytest.raises(InputError, match=r"no position named 'subject'. These pairs have pronoun, verb"):
        pairs.span("subject:last", 0)
    with pytest.raises(InputError, match=r"part 'middle' of a position. Choose \"verb:first\" or \"verb:last\""):
        pairs.span("verb:middle", 0)
    with pytest.raises(InputError, match=r"part ''"):
        pairs.span("verb:", 0)
    with pytest.raises(InputError, match="none; name some with positions="):
        PromptPairs.from_text(reader, "it is", "it is", "Paris").span("verb", 0)


# ---- ids ----


def test_ids_come_as_lists_or_tensors_and_need_no_tokenizer():
    ragged = PromptPairs.from_tokens([[1, 2, 3], [4, 5]], [[1, 7, 3], [4, 6]], [8, (9, 10)], [[11, 12], 13])
    assert ragged.answer == (((8,),), ((9, 10),)) and ragged.foil == (((11,), (12,)), ((13,),))
    assert ragged.read == (2, 1) and ragged.aligned(1) == [("4", "4"), ("5", "6")]
    clean, corrupt = torch.tensor([[1, 2], [3, 4]]), torch.tensor([[1, 5], [3, 6]])
    places = {"s": [[0, 1], [1]]}
    pairs = PromptPairs.from_tokens(clean, corrupt, torch.tensor([7, 8]), read=[0, -1], positions=places)
    assert pairs.clean == ((1, 2), (3, 4)) and pairs.answer == (((7,),), ((8,),))
    assert pairs.read == (0, 1) and pairs.positions == {"s": ((0, 1), (1,))}
    assert PromptPairs.from_tokens([1, 2], [1, 3], 4).clean == ((1, 2),)


def test_ids_and_text_come_to_the_same_pairs(reader):
    text = PromptPairs.from_text(reader, "it is France", "it is Italy", "Paris", "Rome", positions={"s": "France"})
    same = PromptPairs.from_tokens(
        text.clean, text.corrupt, text.answer[0][0], ID["Rome"], positions={"s": 2}, model=reader
    )
    assert same == text and hash(same) == hash(text) and same.show() == text.show()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"answer": ["Paris"]},
            r"Pair 0: the answer is the text 'Paris', but these pairs are token ids.*to_single_token",
        ),
        ({"positions": {"s": "it"}}, r"position 's' is 'it', which means characters, but these pairs are token ids"),
        ({"positions": {"s": (0, 1)}}, r"position 's' is \(0, 1\), which means characters"),
        ({"clean": ["it is"]}, r"a text\. Texts go to PromptPairs\.from_text"),
        ({"clean_decoder": [[1]], "decoder": [[1]]}, r"two names for one thing"),
        ({"clean": [["it", "is"]]}, r"Pair 0: clean is \['it', 'is'\], not a row of token ids.*from_text"),
        ({"clean": [[1.0, 2.0]]}, r"clean is \[1\.0, 2\.0\], not a row"),
        ({"clean": "it is"}, r"clean is 'it is', a text\. Texts go to PromptPairs\.from_text"),
        ({"clean": []}, r"clean is \[\]\. Give rows"),
        ({"clean": [[5, 6], [7]]}, r"There are 2 clean prompts and 1 corrupt ones"),
        ({"clean": [[]]}, r"Pair 0: the clean prompt is empty"),
        ({"corrupt": [[]]}, r"Pair 0: the corrupt prompt is empty"),
        ({"clean": [[-1, 6]]}, r"Pair 0: token id -1 is negative"),
        ({"clean": [[5, 99]]}, r"Pair 0: token id 99 is outside this model's vocabulary, 0 to 15"),
        ({"answer": [99]}, r"Pair 0: token id 99 is outside"),
        ({"answer": [-2]}, r"the answer holds a negative token id"),
        ({"answer": [[]]}, r"Pair 0: the answer is empty"),
        ({"answer": [1.5]}, r"the answer is 1\.5\. Give a text, a token id"),
        ({"answer": None, "foil": 7}, r"There is a foil but no answer"),
        ({"answer": [7, 8]}, r"There are 1 pairs, but answer has 2\..*answer=\[\[\"a\", \"b\"\]"),
        (
            {"answer": [[7, (8, 9)]]},
            r"the answer is a set of 2 alternatives, of which .* is 2 tokens. A set is of single",
        ),
        ({"foil": [6]}, r"Pair 0: 'capital' is the answer and the foil"),
        ({"foil": [[7, 6]]}, r"is the answer and the foil\. Choose a foil"),
        ({"answer": [(7, 6)], "foil": [(7, 6)]}, r"is the answer and the foil"),
        ({"read": 2}, r"read is 2, but the text has 2 tokens: 0 to 1"),
        ({"read": [0, 1]}, r"read has 2 positions for 1 pairs"),
        ({"read": "last"}, r"read is 'last'\. Give a position"),
        ({"read": "mask"}, r'read="mask", but no mask token is known'),
        ({"items": ["a", "b"]}, r"items names each of the 1 pairs, but there are 2 of them"),
        ({"templates": 4}, r"templates names each of the 1 pairs, but there are 4"),
        ({"combine": "max"}, r'combine is \'max\'\. Choose "mean" or "logsumexp"'),
        (
            {"clean": [[5] * 13], "corrupt": [[6] * 13]},
            r"Pair 0: The prompt has 13 tokens; this model reads at most 12",
        ),
        (
            {"clean": [[5] * 11], "corrupt": [[6] * 11], "answer": [(7, 6, 5)]},
            r"with its answer behind it: .* 13 tokens",
        ),
        ({"clean_decoder": [[1]]}, r"one stack, so there is no decoder text"),
        ({"model": "smollm2-135m"}, r"model is 'smollm2-135m', not a loaded model. Load one"),
    ],
)
def test_ids_that_make_no_pair_are_refused(reader, changes, message):
    given = {"clean": [[5, 6]], "corrupt": [[5, 8]], "answer": [6], "model": reader}
    with pytest.raises(InputError, match=message):
        PromptPairs.from_tokens(**{**given, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clean": [], "corrupt": []}, r"There are no clean prompts"),
        ({"clean": ["it is", "it"]}, r"There are 2 clean prompts and 1 corrupt ones"),
        ({"clean": ""}, r"Pair 0: the clean prompt '' is empty.*prepend_bos=True"),
        ({"corrupt": ""}, r"Pair 0: the corrupt prompt '' is empty"),
        ({"clean": [[5, 6]]}, r"clean is \[\[5, 6\]\]\. Give a text.*token ids go to from_tokens"),
        ({"answer": "Lisbon"}, r"the answer 'Lisbon' is not in this vocabulary: it becomes '\[UNK\]'"),
        ({"answer": ""}, r"Pair 0: the answer is empty"),
        ({"foil": ["Rome", "Paris"]}, r"There are 1 pairs, but foil has 2"),
        ({"foil": "Paris"}, r"Pair 0: 'Paris' is the answer and the foil"),
        ({"decoder": "it"}, r"one stack, so there is no decoder text"),
        (
            {"clean": "it " * 13, "corrupt": "is " * 13},
            r"Pair 0: The prompt has 13 tokens; this model reads at most 12",
        ),
        ({"model": None}, r"model is None, not a loaded model"),
    ],
)
def test_texts_that_make_no_pair_are_refused(reader, changes, message):
    given = {"model": reader, "clean": "it is", "corrupt": "it of", "answer": "Paris"}
    with pytest.raises(InputError, match=message):
        PromptPairs.from_text(**{**given, **changes})


def test_a_model_without_tokenizer_is_sent_to_from_tokens():
    with pytest.raises(InputError, match=r"no tokenizer.*PromptPairs\.from_tokens"):
        PromptPairs.from_text(HookedTransformer(ONE), "it is", "it of", "Paris")
    pairs = PromptPairs.from_tokens([5, 6], [5, 7], 8, model=HookedTransformer(ONE))
    assert pairs.aligned(0) == [("5", "5"), ("6", "7")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clean": (), "corrupt": (), "answer": ()}, r"There are no pairs"),
        ({"positions": {"s": ((0,), (1,))}}, r"but positions\['s'\] has 2"),
        ({"positions": {"s": ((4,),)}}, r"Pair 0: position 's' is \(4,\)\. Give at least one index from 0 to 1"),
        ({"positions": {"s": ((),)}}, r"position 's' is \(\)"),
        ({"read": (2,)}, r"read is position 2, but the text has positions 0 to 1"),
        ({"corrupt_decoder": ((1,),)}, r"Only one of clean_decoder and corrupt_decoder"),
    ],
)
def test_pairs_built_by_hand_are_checked_too(changes, message):
    given = {"clean": ((1, 2),), "corrupt": ((1, 3),), "answer": (((4,),),)}
    with pytest.raises(InputError, match=message):
        PromptPairs(**{**given, **changes})


# ---- other models ----


def test_an_encoder_needs_to_know_what_it_fills(encoder):
    clean, corrupt = "the capital of France is [MASK]", "the capital of Italy is [MASK]"
    with pytest.raises(InputError, match=r'This model is an encoder.*Give read=.*"mask"'):
        PromptPairs.from_text(encoder, clean, corrupt, "Paris")
    by_mask = PromptPairs.from_text(encoder, clean, corrupt, "Paris", read="mask", positions={"s": "France"})
    assert by_mask.read == (6,) and by_mask.span("s", 0) == (4,) and by_mask.clean[0][-1] == ID["</s>"]
    assert by_mask == PromptPairs.from_text(encoder, clean, corrupt, "Paris", read=-2, positions={"s": 4})
    with pytest.raises(InputError, match=r"mask token stands in the text 0 times\. Write it once"):
        PromptPairs.from_text(encoder, "it is", "it of", "Paris", read="mask")
    with pytest.raises(InputError, match=r"stands in the text 2 times \(at 1, 2\)"):
        PromptPairs.from_text(encoder, "[MASK] [MASK]", "[MASK] it", "Paris", read="mask")
    with pytest.raises(InputError, match=r"Pair 0: 'Paris'\+'Rome' is 2 tokens, and an encoder fills one position"):
        PromptPairs.from_text(encoder, clean, corrupt, "Paris Rome", read="mask")


def test_what_an_encoder_fills_gets_a_space_only_behind_other_text():
    backend = Backend(models.WordLevel({"a": 0, " b": 1, "b": 2, "[UNK]": 3, "[MASK]": 4}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_next")
    backend.add_special_tokens(["[MASK]"])
    plain = Tokenizer(backend, add_bos=False, bos_id=None, eos_id=None, pad_id=None, unk_id=3)
    model = HookedTransformer(sized(encoder=ENCODER), plain)
    behind = PromptPairs.from_text(model, "a [MASK]", "b [MASK]", "b", read=-1)
    in_front = PromptPairs.from_text(model, "[MASK] b", "[MASK] a", "b", read=0)
    assert (behind.answer, in_front.answer) == ((((1,),),), (((2,),),))


def test_a_model_with_two_stacks_reads_its_answer_in_the_decoder(two_stacks):
    clean, corrupt = ["it is France", "it is"], ["it is Italy", "it of"]
    with pytest.raises(InputError, match=r"an encoder and a decoder. Say what the decoder has read: decoder="):
        PromptPairs.from_text(two_stacks, clean, corrupt, "Paris")
    pairs = PromptPairs.from_text(
        two_stacks, clean, corrupt, "Paris", decoder="<pad> the capital", positions={"s": "it"}
    )
    assert pairs.clean_decoder == pairs.corrupt_decoder == ((0, ID["the"], ID["capital"]),) * 2, "as written, no EOS"
    assert pairs.read == (2, 2) and pairs.predicted_lengths == (3, 3) and pairs.span("s", 1) == (1,)
    other = PromptPairs.from_text(
        two_stacks, clean, corrupt, "Paris", decoder=[[0, 5], [0]], corrupt_decoder=[[0, 6], [0]], read=0
    )
    assert other.read == (0, 0) and other.swapped().clean_decoder == ((0, 6), (0,))
    assert other[1].clean_decoder == ((0,),) and "corrupt decoder" in other.show(0)
    tokens = PromptPairs.from_tokens([5, 6], [5, 7], 8, clean_decoder=[0, 5], model=two_stacks)
    assert tokens == PromptPairs.from_tokens([5, 6], [5, 7], 8, clean_decoder=[0, 5])
    with pytest.raises(InputError, match=r"There are 3 decoder texts for 2 pairs"):
        PromptPairs.from_text(two_stacks, clean, corrupt, "Paris", decoder=["the"] * 3)
    with pytest.raises(InputError, match=r"the clean decoder text has 1 tokens and the corrupt one 2"):
        PromptPairs.from_text(two_stacks, clean, corrupt, "Paris", decoder="the", corrupt_decoder="the it")
    with pytest.raises(InputError, match=r"corrupt decoder text but no clean one"):
        PromptPairs.from_tokens([5], [6], 7, corrupt_decoder=[1])


# ---- some of them, shown ----


def some(reader) -> PromptPairs:
    return PromptPairs.from_text(
        reader,
        ["the capital of France is", "it is Spain", "of Italy"],
        ["the capital of Italy is", "it is Italy", "of Spain"],
        ["Paris", "Madrid", "Rome"],
        ["Rome", "Rome", ["Madrid", "Paris"]],
        positions={"subject": ["France", "Spain", "Italy"]},
        items=["France", "Spain", "Italy"],
        templates="a",
        combine="logsumexp",
    )


def test_some_pairs_keep_all_that_belongs_to_them(reader):
    pairs = some(reader)
    two = pairs.select([2, -2])
    assert two.clean == (pairs.clean[2], pairs.clean[1]) and two.foil == (pairs.foil[2], pairs.foil[1])
    assert two.read == (1, 2) and two.items == ("Italy", "Spain") and two.templates == ("a", "a")
    assert two.positions == {"subject": ((1,), (2,))} and two.combine == "logsumexp"
    assert two.show(0).splitlines()[1:] == pairs.show(2).splitlines()[1:]
    assert pairs[1:] == pairs.select(torch.tensor([1, 2])) and pairs[0] == next(iter(pairs)) and pairs[-1] == pairs[2]
    assert pairs.select(range(3)) == pairs


@pytest.mark.parametrize(
    ("wanted", "message"),
    [(3, r"There is no pair 3: these are 3 pairs, 0 to 2"), ([], r"got \[\]"), ([True, False, True], r"whole numbers")],
)
def test_pairs_that_do_not_exist_are_not_selected(reader, wanted, message):
    with pytest.raises(InputError, match=message):
        some(reader).select(wanted)


def test_swapping_twice_is_nothing_and_once_keeps_the_answers(reader):
    pairs = some(reader)
    swapped = pairs.swapped()
    assert swapped.clean == pairs.corrupt and swapped.corrupt == pairs.clean
    assert swapped.answer == pairs.answer and swapped.positions == pairs.positions
    assert swapped.swapped() == pairs and swapped.show(0) != pairs.show(0)


def test_a_shown_pair_marks_differences_names_and_the_read_in_their_columns(reader):
    pairs = some(reader)
    lines = {line.split()[0]: line for line in pairs.show(0).splitlines()[2:]}
    column = lines["clean"].index("'France'")
    assert lines["corrupt"].index("'Italy'") == lines["differs"].index("^") == lines["subject"].index("*") == column
    assert lines["read"].index("*") == lines["clean"].index("'is'") and lines["read"].count("*") == 1
    assert pairs.show(0).startswith("pair 0: item France, template a")
    assert "foil: 'Madrid' or 'Paris'" in pairs.show(2)
    assert pairs.aligned(0)[3] == ("France", "Italy")


def test_a_long_pair_folds_and_loses_no_token(smollm2):
    text = " ".join(f"word{i}" for i in range(40))
    shown = PromptPairs.from_text(smollm2, text, text, "x").show(0)
    assert max(map(len, shown.splitlines())) <= 112
    clean = "".join(line.removeprefix("clean") for line in shown.splitlines() if line.startswith("clean"))
    assert clean.count("'") == 2 * len(smollm2.tokenizer.encode(text))


# ---- tables ----

HEADER = "clean,corrupt,answer,foil,item,template,pos:subject,pos:verb,note\n"
ROWS = [
    '"the capital of France is","the capital of Italy is",Paris,Rome,France,a,France,-1,""\n',
    "it is Spain,it is Italy,Madrid,Rome,Spain,b,Spain,1,kept out\n",
]


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "pairs.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_table_and_the_same_text_come_to_the_same_pairs(reader, tmp_path, mark):
    path = written(tmp_path, mark + (HEADER + "".join(ROWS)).encode())
    same = PromptPairs.from_text(
        reader,
        ["the capital of France is", "it is Spain"],
        ["the capital of Italy is", "it is Italy"],
        ["Paris", "Madrid"],
        "Rome",
        items=["France", "Spain"],
        templates=["a", "b"],
        positions={"subject": ["France", "Spain"], "verb": [-1, 1]},
        combine="logsumexp",
    )
    assert PromptPairs.from_csv(path, reader, combine="logsumexp") == same


def test_a_table_may_say_where_to_read(encoder, reader, tmp_path):
    path = written(tmp_path, "clean,corrupt,answer,read\nit [MASK],is [MASK],Paris,mask\nit is,it of,Paris,1\n")
    assert PromptPairs.from_csv(path, encoder).read == (2, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clean,answer\na,b\n", r"Row 0 of .*pairs\.csv, its header, lacks corrupt; it has clean, answer"),
        ("", r"its header, lacks clean, corrupt, answer; it has nothing"),
        (HEADER, r"has a header but no rows"),
        ("clean,corrupt,answer,answer\na,b,c,d\n", r"has column 'answer' twice"),
        ("clean,corrupt,answer,foils\na,b,c,d\n", r"has a column 'foils'. Is it 'foil'\?"),
        ("clean,corrupt,answer,pos_s\na,b,c,d\n", r"has a column 'pos_s'. Is it 'pos:s'\?"),
        (HEADER + ROWS[0] + ROWS[1].replace("Madrid", " "), r"Row 2 of .* \(line 3\) has nothing in column 'answer'"),
        (HEADER + ROWS[0].replace("France,-1", ",-1"), r"Row 1 of .* \(line 2\) has nothing in column 'pos:subject'"),
        (HEADER + ROWS[0] + "a,b\n", r"Row 2 of .* \(line 3\) has 2 cells; the header has 9"),
        (HEADER + ROWS[0] + '"a"b,c\n', r"Row 2 of .* is not CSV"),
        (HEADER.encode() + b"\xff\xfe,\n", r"is not UTF-8 text"),
        ("clean,corrupt,answer,read\nit is,it of,Paris,end\n", r"Row 1 of .* has 'end' in column 'read'"),
        (
            HEADER + ROWS[0] + ROWS[1].replace("it is Spain", "it Spain"),
            r"Row 2 of .*\(line 3\): the clean prompt has 2 to",
        ),
        (HEADER + ROWS[0] + ROWS[1].replace("Madrid", "Lisbon"), r"Row 2 of .*'Lisbon' is not in this vocabulary"),
        (HEADER + ROWS[0] + ROWS[1].replace("Spain,1", "Peru,1"), r"Row 2 of .*position 'subject', 'Peru', stands 0"),
        (HEADER + ROWS[0].replace("Rome", "Paris"), r"Row 1 of .*'Paris' is the answer and the foil"),
    ],
)
def test_a_table_that_cannot_be_read_says_the_row_and_the_cause(reader, tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        PromptPairs.from_csv(written(tmp_path, text), reader)


def test_a_missing_table_and_an_argument_given_twice_are_refused(reader, tmp_path):
    with pytest.raises(InputError, match=r"none\.csv cannot be read: No such file"):
        PromptPairs.from_csv(tmp_path / "none.csv", reader)
    with pytest.raises(InputError, match=r"items= was given, and .* has columns for it too"):
        PromptPairs.from_csv(written(tmp_path, HEADER + ROWS[0]), reader, items=["x"])


def test_a_table_of_token_ids_needs_no_model(tmp_path):
    path = tmp_path / "ids.csv"
    path.write_text("clean,corrupt,answer,foil,item,pos:name\n1 2 3,1 4 3,7,8,a,1\n5 6,5 9,7 8,9 9,b,-1\n")
    pairs = PromptPairs.from_csv(path)
    assert pairs.clean == ((1, 2, 3), (5, 6)) and pairs.corrupt == ((1, 4, 3), (5, 9))
    assert pairs.answer == (((7,),), ((7, 8),)) and pairs.foil == (((8,),), ((9, 9),))
    assert pairs.items == ("a", "b") and pairs.positions["name"] == ((1,), (1,))


def test_a_table_of_texts_without_a_model_says_that_it_needs_one(tmp_path):
    path = tmp_path / "texts.csv"
    path.write_text("clean,corrupt,answer\n1 2,1 3,4\nA cat,A dog,5\n")
    with pytest.raises(InputError, match=r"Row 2 .*'A cat' in column 'clean'.*from_csv\(path, model\)"):
        PromptPairs.from_csv(path)


def test_a_table_of_token_ids_takes_indices_for_positions_only(tmp_path):
    path = tmp_path / "ids.csv"
    path.write_text("clean,corrupt,answer,pos:name\n1 2,1 3,4,cat\n")
    with pytest.raises(InputError, match=r"Row 1 .*names position name by text"):
        PromptPairs.from_csv(path)


# ---- what an encoder is asked, and pairs without answers ----


def test_a_read_that_was_not_chosen_is_known_through_every_copy(reader):
    last = PromptPairs.from_tokens([[1, 2], [3, 4]], [[1, 3], [3, 5]], 4)
    chosen = PromptPairs.from_tokens([[1, 2], [3, 4]], [[1, 3], [3, 5]], 4, read=-1)
    assert last == chosen and last.reads_last and not chosen.reads_last
    for copy in (last[0], last.swapped(), last.select([1, 0])):
        assert copy.reads_last
    assert not chosen[0].reads_last and not chosen.swapped().reads_last
    assert PromptPairs.from_text(reader, "it is", "it of", "Paris").reads_last


def test_pairs_without_answers_are_pairs(encoder):
    pairs = PromptPairs.from_text(encoder, ["it is", "it of"], ["it of", "it is"])
    assert pairs.answer == () and pairs.foil == () and len(pairs[1]) == 1 and "answer" not in pairs.show()
    assert PromptPairs.from_tokens([1, 2], [1, 3]).answer == ()


def test_the_read_is_a_position_unless_a_name_says_otherwise():
    pairs = PromptPairs.from_tokens([[1, 2, 3]], [[1, 2, 4]], 4, read=1)
    assert pairs.span("read", 0) == (1,)
    named = PromptPairs.from_tokens([[1, 2, 3]], [[1, 2, 4]], 4, read=1, positions={"read": 0})
    assert named.span("read", 0) == (0,)


def test_a_model_in_the_place_of_the_rows_is_told_where_it_goes(reader, two_stacks):
    with pytest.raises(InputError, match=r"clean is a model. from_tokens takes ids first.*model=model"):
        PromptPairs.from_tokens(reader, [[1, 2]], [[1, 3]], 4)
    one = PromptPairs.from_tokens([[5, 6]], [[5, 7]], 4, decoder=[[1]], model=two_stacks)
    assert one == PromptPairs.from_tokens([[5, 6]], [[5, 7]], 4, clean_decoder=[[1]], model=two_stacks)
    assert one.clean_decoder == one.corrupt_decoder == ((1,),)
