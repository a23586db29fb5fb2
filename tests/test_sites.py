"""The address book: every spelling of a site leads to the same tensor, and every wrong one to a clear error."""

from __future__ import annotations

import dataclasses
import re
from contextlib import suppress
from typing import Any

import jaxtyping
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.errors import InputError, InterpError, UnknownSiteError
from interp.model.config import AttentionConfig, BlockConfig, MLPConfig, ModelConfig, NormConfig, StackConfig
from interp.model.derive import book_of
from interp.sites import TABLE, AddressBook, Head, Site, get_act_name

ATTN = AttentionConfig(2, 4, 2, 0.5)
BOTH = dataclasses.replace(ATTN, mask="bidirectional")


def _book(n_layers: int = 12, *, gated: bool = True) -> AddressBook:
    config = ModelConfig.decoder_only(n_layers=n_layers, d_model=8, n_heads=2, d_vocab=9, n_ctx=8, gated_mlp=gated)
    return book_of(config)


def _two_stacks() -> AddressBook:
    encoder = StackConfig((BlockConfig(BOTH, MLPConfig(8)),) * 3, NormConfig(), learned_positions=8)
    decoder = StackConfig((BlockConfig(ATTN, MLPConfig(8), cross_attn=BOTH),) * 6, NormConfig())
    return book_of(ModelConfig(8, 9, 8, decoder=decoder, encoder=encoder))


def _every_site() -> list[Site]:
    return [
        Site(row.name, row.part, layer, stack)
        for row in TABLE
        for layer in ((0, 3, 11, 100) if row.in_block else (None,))
        for stack in ("", "encoder", "decoder")
    ]


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


# ---- one site ----


def test_every_site_reads_back_from_its_own_spelling() -> None:
    for site in _every_site():
        assert Site.parse(str(site)) == site
        assert str(site) == site.address + site.name


def test_no_two_sites_share_a_spelling() -> None:
    sites = _every_site()
    assert len({str(site) for site in sites}) == len(sites) == len(set(sites))


def test_the_canonical_spellings_are_the_ones_in_use() -> None:
    assert str(Site("hook_q", "attn", 3)) == "blocks.3.attn.hook_q"
    assert str(Site("hook_resid_mid", "", 3)) == "blocks.3.hook_resid_mid"
    assert str(Site("hook_pattern", "cross_attn", 3, "decoder")) == "decoder.blocks.3.cross_attn.hook_pattern"
    assert str(Site("hook_embed", stack="encoder")) == "encoder.hook_embed"
    assert str(Site("hook_scale", "ln_final")) == "ln_final.hook_scale"


def test_every_tensor_that_the_issue_lists_is_in_the_table() -> None:
    listed = """
        hook_embed hook_resid_pre hook_resid_mid hook_resid_post hook_attn_out hook_mlp_out ln1.hook_scale
        ln2.hook_scale ln1.hook_normalized ln2.hook_normalized attn.hook_q attn.hook_k attn.hook_v attn.hook_rot_q
        attn.hook_rot_k attn.hook_attn_scores attn.hook_pattern attn.hook_z attn.hook_result mlp.hook_pre
        mlp.hook_pre_linear mlp.hook_post ln_final.hook_scale ln_final.hook_normalized hook_unembed
    """
    assert set(listed.split()) <= {row.path for row in TABLE}
    axes = {row.path: " ".join(row.axes) for row in TABLE}
    assert axes["attn.hook_pattern"] == "batch head q_pos k_pos"
    assert axes["attn.hook_result"] == "batch pos head d_model"
    assert axes["attn.hook_k"] == axes["attn.hook_v"] == "batch pos kv_head d_head"
    assert axes["cross_attn.hook_k"] == "batch k_pos kv_head d_head"


def test_axes_are_the_words_of_the_style_guide() -> None:
    known = "batch pos q_pos k_pos d_model head kv_head d_head d_mlp d_vocab one"
    assert {axis for row in TABLE for axis in row.axes} <= set(known.split())
    assert all(row.axes[0] == "batch" for row in TABLE)


def test_a_site_that_cannot_exist_is_refused_with_the_nearest_names() -> None:
    with pytest.raises(UnknownSiteError, match=r"attn\.hook_quu"):
        Site("hook_quu", "attn", 0)
    with pytest.raises(UnknownSiteError, match=re.escape("Near it: blocks.0.hook_resid_mid")):
        Site.parse("blocks.0.hook_resid_mdi")
    with pytest.raises(UnknownSiteError):
        Site("hook_q", "attn")  # outside the blocks
    with pytest.raises(UnknownSiteError):
        Site("hook_embed", layer=0)  # inside one


@pytest.mark.parametrize("text", ["", " ", "blocks.0.attn.hook_q ", "Blocks.0.attn.hook_q", "blocks.x.attn.hook_q"])
def test_parse_takes_nothing_but_the_exact_spelling(text: str) -> None:
    with pytest.raises(UnknownSiteError):
        Site.parse(text)


def test_a_site_is_frozen_and_hashable() -> None:
    site = Site("hook_q", "attn", 3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        site.layer = 4  # type: ignore[misc]
    assert {site: 1}[Site.parse("blocks.3.attn.hook_q")] == 1


# ---- resolving ----


@pytest.mark.parametrize(
    "address",
    [
        "blocks.3.attn.hook_q",
        "q.3",
        "q3",
        "query.3",
        ("q", 3),
        ("q", 3, "attn"),
        ("hook_q", 3),
        ("q", 3, "a"),
        "attn.q.3",
        ("attn", "q", 3),
        "blocks.3.attn.q.hook_out",
        "blocks.-9.attn.hook_q",
        ("q", -9),
        "q.-9",
        Site("hook_q", "attn", 3),
    ],
)
def test_every_spelling_of_a_query_is_the_same_site(address: Any) -> None:
    assert str(_book().resolve(address)) == "blocks.3.attn.hook_q"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("embed", "hook_embed"),
        ("embed.hook_out", "hook_embed"),
        ("logits", "hook_unembed"),
        ("unembed", "hook_unembed"),
        ("unembed.hook_out", "hook_unembed"),
        ("resid_pre.0", "blocks.0.hook_resid_pre"),
        ("blocks.2.hook_in", "blocks.2.hook_resid_pre"),
        ("blocks.2.hook_out", "blocks.2.hook_resid_post"),
        ("blocks.2.ln1.hook_in", "blocks.2.hook_resid_pre"),
        ("blocks.2.ln2.hook_in", "blocks.2.hook_resid_mid"),
        ("blocks.2.attn.hook_out", "blocks.2.hook_attn_out"),
        ("blocks.2.attn.o.hook_in", "blocks.2.attn.hook_z"),
        ("blocks.2.mlp.hook_out", "blocks.2.hook_mlp_out"),
        ("blocks.2.mlp.out.hook_in", "blocks.2.mlp.hook_post"),
        ("blocks.2.mlp.gate.hook_out", "blocks.2.mlp.hook_pre"),
        ("blocks.2.mlp.in.hook_out", "blocks.2.mlp.hook_pre_linear"),
        ("attn.5", "blocks.5.attn.hook_pattern"),
        ("attn_logits.5", "blocks.5.attn.hook_attn_scores"),
        ("scores.5", "blocks.5.attn.hook_attn_scores"),
        (("mlp_post", 5), "blocks.5.mlp.hook_post"),
        (("scale", 4, "ln1"), "blocks.4.ln1.hook_scale"),
        ("scale4ln1", "blocks.4.ln1.hook_scale"),
        ("normalized.4.ln2", "blocks.4.ln2.hook_normalized"),
        ("ln2.normalized.4", "blocks.4.ln2.hook_normalized"),
        ("ln_final.scale", "ln_final.hook_scale"),
        ("ln_final.hook_normalized", "ln_final.hook_normalized"),
        ("resid_post.-1", "blocks.11.hook_resid_post"),
        ("blocks.-1.hook_resid_post", "blocks.11.hook_resid_post"),
        ("blocks.-1.attn.q.hook_out", "blocks.11.attn.hook_q"),
    ],
)
def test_spellings_lead_where_they_say(address: Any, expected: str) -> None:
    assert str(_book().resolve(address)) == expected


def test_in_an_mlp_without_a_gate_the_bridge_calls_its_only_half_in() -> None:
    assert str(_book(gated=False).resolve("blocks.2.mlp.in.hook_out")) == "blocks.2.mlp.hook_pre"


def test_every_site_of_a_book_resolves_from_each_way_to_spell_it() -> None:
    for book in (_book(3), _two_stacks()):
        for site in book:
            assert book.resolve(str(site)) == site
            assert book.resolve(site) == site
            assert str(site) in book and book[str(site)] == site
            short, where = site.row.short[0], (site.stack or None, site.part or None)
            if site.layer is None:
                continue
            if len([row for row in TABLE if short in row.short and row.in_block]) == 1:
                assert book.resolve((site.stack or None, short, site.layer)) == site
            assert book.resolve((where[0], where[1], short, site.layer)) == site, (where, short)
            assert book.resolve((where[0], where[1], site.name, site.layer)) == site


def test_bridge_spellings_of_every_site_lead_back_to_it_or_to_the_other_half_of_a_gated_mlp() -> None:
    book = _two_stacks()
    for site in book:
        prefix = f"{site.stack}." + (f"blocks.{site.layer}." if site.layer is not None else "")
        for bridge in site.row.bridge:
            found = book.resolve(prefix + bridge) if site.stack else book.resolve(bridge)
            if site.name == "hook_pre" and bridge == "mlp.in.hook_out":
                assert found == dataclasses.replace(site, name="hook_pre_linear")
            elif bridge == "ln2.hook_in" or site.stack == "":
                continue
            else:
                assert found == site, (prefix + bridge, str(found))


def test_what_a_norm_reads_is_found_by_its_bridge_name_in_two_stacks() -> None:
    book = _two_stacks()
    assert str(book.resolve("decoder.blocks.0.ln2.hook_in")) == "decoder.blocks.0.hook_resid_mid"
    assert str(book.resolve("decoder.blocks.0.ln3.hook_in")) == "decoder.blocks.0.hook_resid_mid_cross"
    assert str(book.resolve("encoder.blocks.0.ln1.hook_in")) == "encoder.blocks.0.hook_resid_pre"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("decoder.blocks.3.cross_attn.hook_pattern", "decoder.blocks.3.cross_attn.hook_pattern"),
        ("decoder.cross_attn.pattern.5", "decoder.blocks.5.cross_attn.hook_pattern"),
        ("cross_attn.pattern.5", "decoder.blocks.5.cross_attn.hook_pattern"),
        (("decoder", "q", 5), "decoder.blocks.5.attn.hook_q"),
        (("decoder", "q", -1), "decoder.blocks.5.attn.hook_q"),
        (("encoder", "q", -1), "encoder.blocks.2.attn.hook_q"),
        ("decoder.q.5", "decoder.blocks.5.attn.hook_q"),
        ("encoder.q1", "encoder.blocks.1.attn.hook_q"),
        ("q.5", "decoder.blocks.5.attn.hook_q"),  # the encoder has three layers
        ("blocks.5.attn.hook_q", "decoder.blocks.5.attn.hook_q"),
        ("encoder.embed", "encoder.hook_embed"),
        ("pos_embed", "encoder.hook_pos_embed"),  # the only one
        ("logits", "hook_unembed"),
        ("decoder.ln_final.scale", "decoder.ln_final.hook_scale"),
        ("decoder.blocks.-1.cross_attn.hook_z", "decoder.blocks.5.cross_attn.hook_z"),
        ("encoder.blocks.-1.attn.hook_z", "encoder.blocks.2.attn.hook_z"),
        ("cross_attn_out.2", "decoder.blocks.2.hook_cross_attn_out"),
    ],
)
def test_with_two_stacks_a_spelling_names_its_stack_where_it_must(address: Any, expected: str) -> None:
    assert str(_two_stacks().resolve(address)) == expected


@pytest.mark.parametrize("address", ["q.1", "embed", ("pattern", 0), "blocks.0.hook_resid_pre", "ln_final.scale"])
def test_a_spelling_that_two_stacks_share_is_refused_with_both_names(address: Any) -> None:
    with pytest.raises(UnknownSiteError, match=r"could mean encoder\..* or decoder\.") as caught:
        _two_stacks().resolve(address)
    assert not str(caught.value).startswith(("'", '"')) or str(caught.value).count("could mean") == 1


def test_a_norm_must_be_named_where_a_block_has_several() -> None:
    with pytest.raises(UnknownSiteError, match=r"could mean blocks.4.ln1.hook_scale or blocks.4.ln2.hook_scale"):
        _book().resolve(("scale", 4))


@pytest.mark.parametrize(
    ("address", "hint"),
    [
        ("qq.3", "q.3"),
        ("blocks.3.attn.hook_w", "blocks.3.attn.hook_"),
        ("pattren.3", "pattern.3"),
        ("q.12", "layers 0 to 11"),
        (("q", -13), "layers 0 to 11"),
        ("blocks.99.hook_resid_pre", "layers 0 to 11"),
        ("hook_embedd", "hook_embed"),
        ("hook_pos_embed", "hook_embed"),  # this model has rotary positions
        ("resid_post", "resid_post."),
        ("", "There are"),
    ],
)
def test_an_unknown_spelling_is_refused_with_what_exists(address: Any, hint: str) -> None:
    with pytest.raises(UnknownSiteError) as caught:
        _book().resolve(address)
    assert hint in str(caught.value)


def test_an_unknown_site_is_an_interp_error_and_a_key_error_with_a_plain_message() -> None:
    with pytest.raises(UnknownSiteError) as caught:
        _book().resolve("nothing")
    assert isinstance(caught.value, InterpError) and isinstance(caught.value, KeyError)
    assert str(caught.value).startswith("This model has no tensor 'nothing'.")


WORDS = ["q", "k", "pattern", "attn", "mlp", "ln1", "blocks", "hook_q", "hook_out", "encoder", "decoder", "scale"]
PIECES = st.one_of(
    st.sampled_from(WORDS), st.integers(-20, 200).map(str), st.text(max_size=5), st.sampled_from([".", "..", "-"])
)
TEXTS = st.one_of(
    st.text(max_size=30), st.lists(PIECES, max_size=6).map(".".join), st.lists(PIECES, max_size=5).map("".join)
)
TUPLES = st.lists(st.one_of(st.sampled_from(WORDS), st.integers(), st.none(), st.text(max_size=4)), max_size=4)
BOOKS = [_book(4), _two_stacks()]


@settings(max_examples=400, deadline=None)
@given(st.one_of(TEXTS, TUPLES.map(tuple)))
def test_resolve_gives_a_site_of_this_model_or_says_there_is_none(address: Any) -> None:
    for book in BOOKS:
        try:
            assert book.resolve(address) in list(book)
        except UnknownSiteError as error:
            assert len(str(error)) > 10


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_parse_and_get_act_name_know_a_name_or_say_so(text: str) -> None:
    for read in (lambda x: str(Site.parse(x)), get_act_name):
        with suppress(UnknownSiteError):
            assert str(Site.parse(read(text))) == read(text)


@pytest.mark.parametrize("address", ["q." + "9" * 5000, "q" + "9" * 5000, "blocks." + "9" * 5000 + ".attn.hook_q"])
def test_a_layer_too_long_to_be_a_number_is_an_unknown_site(address: str) -> None:
    with pytest.raises(UnknownSiteError):
        _book().resolve(address)
    with pytest.raises(UnknownSiteError):
        Site.parse(address)


# ---- select ----


def test_select_takes_none_one_several_and_a_test_of_the_name() -> None:
    book = _book(3)
    assert book.select(None) == list(book)
    assert [str(site) for site in book.select("q.1")] == ["blocks.1.attn.hook_q"]
    assert book.select(("q", 1)) == book.select("q.1") == book.select(Site("hook_q", "attn", 1))
    assert [str(site) for site in book.select(["q.1", ("k", -1), Site("hook_embed")])] == [
        "blocks.1.attn.hook_q",
        "blocks.2.attn.hook_k",
        "hook_embed",
    ]
    assert book.select(("q.1", "k.1")) == book.select(["q.1", "k.1"])  # several, not coordinates
    assert [str(site) for site in book.select(lambda name: name.endswith("hook_z"))] == [
        f"blocks.{layer}.attn.hook_z" for layer in range(3)
    ]


def test_select_gives_a_site_once_however_often_it_is_named() -> None:
    assert len(_book().select(["q.1", ("q", 1), "blocks.1.attn.hook_q", "blocks.1.attn.q.hook_out"])) == 1


def test_a_filter_that_picks_nothing_raises() -> None:
    with pytest.raises(UnknownSiteError, match="picked none of the"):
        _book().select(lambda name: "resid_poost" in name)


def test_one_unknown_name_among_several_raises() -> None:
    with pytest.raises(UnknownSiteError, match="qqq"):
        _book().select(["q.1", "qqq.1"])


def test_something_that_is_no_filter_is_refused_in_plain_words(unchecked: None) -> None:
    with pytest.raises(InterpError):
        _book().select(5)  # type: ignore[arg-type]


def test_names_come_in_the_order_of_the_forward_pass() -> None:
    names = _book(2).names
    order = ["hook_embed", "blocks.0.hook_resid_pre", "blocks.0.ln1.hook_scale", "blocks.0.attn.hook_q"]
    order += ["blocks.0.attn.hook_rot_q", "blocks.0.attn.hook_attn_scores", "blocks.0.attn.hook_pattern"]
    order += ["blocks.0.attn.hook_z", "blocks.0.hook_attn_out", "blocks.0.hook_resid_mid", "blocks.0.mlp.hook_post"]
    order += ["blocks.0.hook_resid_post", "blocks.1.hook_resid_pre", "ln_final.hook_scale", "hook_unembed"]
    places = [names.index(name) for name in order]
    assert places == sorted(places)
    assert len(set(names)) == len(names) == len(_book(2))


# ---- get_act_name ----


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("k", 6, "a"), "blocks.6.attn.hook_k"),
        (("pre", 2), "blocks.2.mlp.hook_pre"),
        (("embed",), "hook_embed"),
        (("normalized", 27, "ln2"), "blocks.27.ln2.hook_normalized"),
        (("k6",), "blocks.6.attn.hook_k"),
        (("scale4ln1",), "blocks.4.ln1.hook_scale"),
        (("pre5",), "blocks.5.mlp.hook_pre"),
    ],
)
def test_get_act_name_gives_what_transformer_lens_documents(arguments: tuple, expected: str) -> None:
    assert get_act_name(*arguments) == expected


@pytest.fixture(scope="module")
def their_name() -> Any:
    from warnings import catch_warnings, simplefilter

    with catch_warnings():
        simplefilter("ignore")
        from transformer_lens.utilities import get_act_name as theirs
    return theirs


THEIR_SHORT = """q k v z rot_q rot_k result pattern attn attn_scores attn_logits pre post mlp_out attn_out
    resid_pre resid_mid resid_post mlp_pre mlp_post query key value"""


@pytest.mark.parametrize("short", THEIR_SHORT.split())
def test_get_act_name_equals_transformer_lens_on_every_short_name_and_layer(short: str, their_name: Any) -> None:
    for layer in (0, 1, 7, 31):
        theirs = their_name(short, layer)
        assert get_act_name(short, layer) == theirs
        assert get_act_name(f"{short}{layer}") == theirs  # theirs reads this form only without an underscore


def test_get_act_name_equals_transformer_lens_for_norms_and_outside_the_blocks(their_name: Any) -> None:
    for part in ("ln1", "ln2"):
        for short in ("scale", "normalized"):
            assert get_act_name(short, 4, part) == their_name(short, 4, part)
            assert get_act_name(f"{short}4{part}") == their_name(f"{short}4{part}")
    for short in ("embed", "pos_embed"):
        assert get_act_name(short) == their_name(short)
    assert get_act_name("blocks.3.attn.hook_q") == their_name("blocks.3.attn.hook_q") == "blocks.3.attn.hook_q"
    assert get_act_name("scale", None) == their_name("scale") == "ln_final.hook_scale"
    assert get_act_name("normalized") == their_name("normalized") == "ln_final.hook_normalized"


def test_get_act_name_refuses_what_no_model_has() -> None:
    with pytest.raises(UnknownSiteError, match="qq"):
        get_act_name("qq", 3)
    with pytest.raises(UnknownSiteError):
        get_act_name("hook_nothing")
    with pytest.raises(UnknownSiteError, match="ln1"):
        get_act_name("scale", 3)
    with pytest.raises(UnknownSiteError):
        get_act_name("q")  # a layer is needed
    with pytest.raises(UnknownSiteError):
        get_act_name("embed", 3)


def test_get_act_name_takes_a_layer_as_text_and_refuses_one_that_is_no_number() -> None:
    assert get_act_name("q", "3") == "blocks.3.attn.hook_q"
    with pytest.raises(UnknownSiteError):
        get_act_name("q", "three")


# ---- heads ----


@pytest.mark.parametrize(
    ("text", "head"),
    [
        ("23.4", Head(23, 4)),
        ("attn.0.0", Head(0, 0)),
        ("decoder.cross_attn.5.3", Head(5, 3, "cross_attn", "decoder")),
        ("encoder.attn.1.2", Head(1, 2, "attn", "encoder")),
        ("encoder.1.2", Head(1, 2, "attn", "encoder")),
        ("cross_attn.1.2", Head(1, 2, "cross_attn")),
    ],
)
def test_a_head_reads_back_from_its_spelling(text: str, head: Head) -> None:
    assert Head.parse(text) == head
    assert Head.parse(str(head)) == head


def test_heads_are_spelled_as_papers_spell_them() -> None:
    assert str(Head(23, 4)) == "23.4"
    assert str(Head(5, 3, "cross_attn", "decoder")) == "decoder.cross_attn.5.3"
    assert str(Head(1, 2, "attn", "encoder")) == "encoder.attn.1.2"


@pytest.mark.parametrize("text", ["", "23", "23.4.5", "a.b", "23.-4", "L23H4", "mlp.3.4", "23.4 ", "1.2\n"])
def test_what_is_no_head_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"is not a head\. Write layer\.head"):
        Head.parse(text)


def test_heads_sort_by_layer_then_head() -> None:
    heads = [Head(2, 0), Head(0, 10), Head(0, 2)]
    assert sorted(heads) == [Head(0, 2), Head(0, 10), Head(2, 0)]
    assert len({Head(1, 1), Head.parse("1.1")}) == 1


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=20))
def test_any_text_is_a_head_that_reads_back_or_an_input_error(text: str) -> None:
    try:
        head = Head.parse(text)
    except InputError:
        return
    assert Head.parse(str(head)) == head


def test_the_book_prints_each_tensor_once_with_its_axes() -> None:
    book = _two_stacks()
    lines = str(book).splitlines()
    assert "decoder.blocks.{0–5}.cross_attn.hook_pattern" in str(book)
    assert next(line for line in lines if line.startswith("encoder.blocks.{0–2}.attn.hook_q ")).split()[1:] == [
        "batch",
        "pos",
        "head",
        "d_head",
    ]
    assert len(lines) == len({(site.stack, site.row.path, site.layer is None) for site in book})
    assert lines[-1].split() == ["hook_unembed", "batch", "pos", "d_vocab"]
    assert f"{len(book)} sites" in repr(book) and len(repr(book)) < 200


def test_layers_that_have_a_tensor_are_named_where_not_all_have_it() -> None:
    attn_only, whole = BlockConfig(ATTN, None), BlockConfig(ATTN, MLPConfig(8))
    book = book_of(ModelConfig(8, 9, 8, decoder=StackConfig((whole, attn_only, whole, whole))))
    assert "blocks.{0, 2–3}.hook_mlp_out" in str(book) and "blocks.{0–3}.hook_attn_out" in str(book)


def test_the_bridges_names_of_two_stacks_lead_to_ours() -> None:
    book = _two_stacks()
    for theirs, ours in {
        "encoder_blocks.0.attn.hook_z": "encoder.blocks.0.attn.hook_z",
        "decoder_blocks.0.self_attn.q.hook_out": "decoder.blocks.0.attn.hook_q",
        "decoder_blocks.-1.cross_attn.o.hook_in": "decoder.blocks.5.cross_attn.hook_z",
        "decoder_blocks.2.hook_resid_mid2": "decoder.blocks.2.hook_resid_mid_cross",
        "decoder_ln_final.hook_in": "decoder.blocks.5.hook_resid_post",
        "decoder_embed.hook_out": "decoder.hook_embed",
        "pos_embed.hook_out": "encoder.hook_pos_embed",
    }.items():
        assert str(book.resolve(theirs)) == ours
