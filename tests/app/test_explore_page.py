"""The Explore page: surprisal and expectations against the model itself, presets, chat, and the ways on."""

from __future__ import annotations

import pytest
import torch
from mounted import bar, drawn, run_code
from serving import HOSTILE, tiny_model
from streamlit.testing.v1 import AppTest

from app.exploring import PRESETS

PROMPT = "the cat sat on the mat"
ASKED = {"prompt": PROMPT, "bos": "0", "answer_token": "a", "foil_token": "cat"}
TEMPLATE = "{% for one in messages %}{{ '<s> ' + one['content'] + ' on' }}{% endfor %}"


def html(at: AppTest) -> str:
    return "\n".join(element.proto.body for element in at.get("html"))


def address(at: AppTest) -> dict[str, str]:
    return {name: value if isinstance(value, str) else value[0] for name, value in at.query_params.items()}


def log_probs(text: str = PROMPT):
    with torch.no_grad():
        return tiny_model()(text, prepend_bos=False)[0].log_softmax(-1)


def test_each_token_has_the_surprisal_of_a_whole_forward_pass(opened):
    at = opened("explore", **ASKED)
    assert not at.exception and address(at) == ASKED
    (strip,) = drawn(at)
    ids = tiny_model().tokenizer.encode(PROMPT)
    assert strip["tokens"] == PROMPT.split() and strip["values"][0] is None and strip["pos"] == 5
    own = [-float(log_probs()[i, ids[i + 1]]) for i in range(5)]
    assert strip["values"][1:] == pytest.approx(own, abs=1e-5)
    assert f"surprisal {sum(own) / 5:.2f} nats on average" in html(at)


def test_a_long_prompt_is_read_in_chunks_and_cut(opened):
    text = "the cat sat on a mat " * 100
    at = opened("explore", prompt=text, bos="0")
    (strip,) = drawn(at)
    assert len(strip["values"]) == 512 and "the first 512 are shown" in html(at)
    whole, ids = log_probs(text), tiny_model().tokenizer.encode(text)
    for i in (63, 64, 127, 510):  # at the borders of chunks
        assert strip["values"][i + 1] == pytest.approx(-float(whole[i, ids[i + 1]]), abs=1e-4)


@pytest.mark.parametrize("query", [{}, {"pos": "2"}, {"answer_token": ""}])
def test_the_code_of_the_page_gives_its_numbers(opened, query):
    at = opened("explore", **{name: value for name, value in {**ASKED, **query}.items() if value})
    names, (strip,) = run_code(at), drawn(at)
    assert names["surprisal"].tolist() == pytest.approx(strip["values"][1:], abs=1e-5)
    best = names["best"]
    chances = names["log_probs"][strip["pos"], best.indices].exp().tolist()
    for chance, logit in zip(chances, best.values.tolist(), strict=True):
        assert f"<td>{chance:.4f}</td><td>{logit:.3f}</td>" in html(at)
    if "answer" in names:
        assert f"answer − foil: {names['answer'] - names['foil']:+.3f}" in html(at)
    else:
        assert query == {"answer_token": ""}


def test_answer_and_foil_show_probability_logit_and_rank(opened):
    at = opened("explore", **ASKED)
    last, model = log_probs()[-1], tiny_model()
    for name in ("a", "cat"):
        one = model.to_single_token(name)
        rank = int((last > last[one]).sum()) + 1
        assert f"<td>{rank}</td><td>&#x27;{name}&#x27;</td><td>{float(last[one].exp()):.4f}</td>" in html(at)


def test_a_token_that_is_none_is_said_and_the_rest_is_shown(opened):
    at = opened("explore", **{**ASKED, "answer_token": "nonsense", "pos": "99"})
    assert not at.exception and "is not in this vocabulary" in html(at) and "There is no position 99" in html(at)
    assert drawn(at)[0]["pos"] == 5


def test_presets_fill_the_form(opened):
    at = opened("explore", **ASKED, pos="2")
    preset = PRESETS["capital of France"]
    at.button(key="preset capital of France").click().run()
    assert not at.exception
    assert address(at) == {"prompt": preset.prompt, "bos": "0", "answer_token": "Paris", "foil_token": "London"}


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_are_pairs_that_patching_can_align(smollm2, name):
    import interp

    preset = PRESETS[name]
    pairs = interp.PromptPairs.from_text(smollm2, preset.prompt, preset.corrupt, preset.answer, preset.corrupt_foil)
    assert [a == b for a, b in zip(pairs.clean[0], pairs.corrupt[0], strict=True)].count(False) >= 1
    for word in (preset.answer, preset.foil):
        assert len(smollm2.tokenizer.encode(f" {word}", prepend_bos=False)) == 1


@pytest.fixture
def chatty(opened, monkeypatch):
    """The tiny model with a chat template."""

    def load(name: str):
        model = tiny_model(name)
        model.tokenizer.chat_template = TEMPLATE
        return model

    monkeypatch.setattr("interp.load", load)
    return opened


def test_with_a_chat_template_the_prompt_becomes_a_message(chatty):
    at = chatty("explore", prompt="the cat sat", chat="1")
    assert not at.exception and drawn(at)[0]["tokens"] == ["<s>", "the", "cat", "sat", "on"]
    assert run_code(at)["tokens"].shape == (1, 5) and address(at)["chat"] == "1"


def test_a_model_without_a_template_says_so(opened):
    at = opened("explore", **ASKED, chat="1")
    assert not at.exception and "tiny has no chat template" in html(at)
    assert drawn(at)[0]["tokens"] == PROMPT.split()


def test_an_encoder_is_one_sentence(opened, monkeypatch):
    from app import exploring

    real = exploring.read_through

    def as_encoder(model, prompt):
        stack = type("Encoder", (), {"decoder": None, "cfg": model.cfg})()
        return real(stack, prompt)

    monkeypatch.setattr(exploring, "read_through", as_encoder)
    at = opened("explore", **ASKED)
    assert not at.exception and "predicts no next token" in html(at)


def test_hostile_text_is_escaped_and_never_markdown(opened):
    at = opened("explore", prompt=" ".join(HOSTILE), bos="0", answer_token=HOSTILE[0], foil_token=HOSTILE[1])
    assert not at.exception and drawn(at)[0]["tokens"] == HOSTILE
    assert HOSTILE[0] not in html(at) and "&lt;img/src=x" in html(at)
    assert not any(mark in one.value for one in at.markdown for mark in HOSTILE)
    for chart in at.get("plotly_chart"):
        assert "<img" not in chart.proto.spec and "<script" not in chart.proto.spec
    assert run_code(at)["tokens"].shape == (1, 4) and HOSTILE[3] not in bar(at)["code"].splitlines()[-1]
