"""Ablating a head on the current prompt: what the model then predicts, before and after, without changing the model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import streamlit as st
import torch

import interp
from app import models, state
from app.components.text import notice, plain, table
from app.computing import computed
from app.question import token
from interp.errors import InputError, InterpError
from interp.model.transformer import HookedTransformer
from interp.sites import Head, Site
from interp.tasks.natural_text import passages

__all__ = ["Ablated", "ablated", "panel"]

_PREDICTIONS = 6
_MEAN_TEXTS, _MEAN_TOKENS = 16, 32  # bundled texts and the tokens of each that a mean is over
_CHARACTERS = 400  # of a text, which hold those tokens
_WAYS = {"clean": "as it is", "zero": "set to zero", "mean": "set to its mean"}


@dataclass(frozen=True)
class Ablated:
    """Logits behind the last token `[way, d_vocab]`, as the model is, with a head's output at zero, and at its mean."""

    logits: torch.Tensor
    n_texts: int

    def logit(self, token: int) -> list[float]:
        return [float(row[token]) for row in self.logits]

    @property
    def log_probs(self) -> torch.Tensor:
        return self.logits.double().log_softmax(-1)

    @property
    def divergence(self) -> list[float]:
        """Kullback-Leibler divergence of each way's predictions from the model's own, in bits."""
        own = self.log_probs[0]
        return [float((own.exp() * (own - row)).sum() / np.log(2)) for row in self.log_probs]


@torch.no_grad()
def ablated(name: str, head: Head, ids: tuple[int, ...], *, bos: bool) -> Ablated:
    """One pass as the model is, and two with `interp.run_with_edits`: the head's z at zero, and at its mean over the
    beginnings of bundled texts, one for all positions. Raises `InputError` for a model that predicts no tokens."""
    model = models.loaded(name)
    if model.unembed is None:
        raise InputError(f"{model.cfg.model_name} predicts no tokens, so there is no prediction to compare.")
    site = str(Site("hook_z", head.sublayer, head.layer, head.stack))
    means, n_texts = _means(models.content_hash(name), site, bos, _model=model)
    mean = means[head.head].to(model.device, model.dtype)
    text, last = torch.tensor([ids], device=model.device), [len(ids) - 1]
    rows = [model(text, unembed_pos=last)]
    for value in (0.0, mean):
        edit = interp.Edit(site, value, units=[head.head])
        rows.append(interp.run_with_edits(model, text, edit, unembed_pos=last))
    return Ablated(torch.stack([row[0, 0].float().cpu() for row in rows]), n_texts)


@st.cache_resource(max_entries=64, show_spinner=False)
def _means(content: str, site: str, bos: bool, *, _model: HookedTransformer) -> tuple[torch.Tensor, int]:
    """The mean of a layer's z `[head, d_head]` over the beginnings of bundled texts, and how many those were."""
    assert _model.tokenizer is not None
    n = min(_MEAN_TOKENS, _model.cfg.n_ctx)
    rows = [_model.tokenizer.encode(text[:_CHARACTERS], prepend_bos=bos)[:n] for text in passages()[:_MEAN_TEXTS]]
    rows = [row for row in rows if len(row) == n]  # one batch
    layer = _model.sites.resolve(site).layer
    assert layer is not None
    batch = torch.tensor(rows, device=_model.device)
    _, cache = _model.run_with_cache(batch, [site], stop_at_layer=layer + 1)
    return cache[site].double().mean((0, 1)).cpu(), len(rows)


def panel(model_name: str, head: Head, prompt: models.ReadPrompt) -> None:
    """Ask for an answer and a foil, ablate on demand, and show what changed."""
    st.markdown("#### Ablate it now")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        for name, words, empty in (
            ("answer_token", "Answer", "what the model predicts"),
            ("foil_token", "Foil", "none"),
        ):
            bound = state.widget(name, state.get(name) or "")
            st.text_input(words, max_chars=state.MAX_TOKEN_TEXT, placeholder=empty, width=200, key=bound["key"],
                          on_change=_take, args=(name,))  # fmt: skip
    try:
        own = models.loaded(model_name)
        if own.unembed is None:
            notice(f"{model_name} predicts no tokens, so there is nothing to compare. Choose a model that does.")
            return
        answer, foil = (token(model_name, prompt, what, len(prompt.ids) - 1) for what in ("answer_token", "foil_token"))
    except InterpError as error:
        notice(str(error), "error")
        return
    key = ("ablated", models.content_hash(model_name), str(head), prompt.ids, prompt.has_bos)
    found: Ablated | None = computed(
        f"Ablation of {head} in {model_name}",
        key,
        lambda: ablated(model_name, head, prompt.ids, bos=prompt.has_bos),
        button="Ablate it now",
        note="Three passes of the model with an edit of this head alone; the model itself stays as it is.",
    )
    if found is not None:
        _show(own, head, found, answer, foil)


def _take(name: str) -> None:
    given = st.session_state[f"widget:{name}"]
    state.put(name, given if given.strip() else None)


def _show(model: HookedTransformer, head: Head, found: Ablated, answer: int | None, foil: int | None) -> None:
    spelled = model.tokenizer.str_tokens
    answer = int(found.logits[0].argmax()) if answer is None else answer
    names = f"logit of {spelled([answer])[0]!r}" + ("" if foil is None else f" − {spelled([foil])[0]!r}")
    logits = found.logit(answer)
    if foil is not None:
        logits = [mine - other for mine, other in zip(logits, found.logit(foil), strict=True)]
    chances = found.log_probs[:, answer].exp().tolist()
    left, right = st.columns(2, gap="large")
    with left:
        st.markdown("**What it does to the answer**")
        rows = []
        for way, logit, p, bits in zip(_WAYS, logits, chances, found.divergence, strict=True):
            line = {f"head {head}": _WAYS[way], names: f"{logit:.3f}"}
            line["change"] = "–" if way == "clean" else f"{logit - logits[0]:+.3f}"
            line[f"p({spelled([answer])[0]!r})"] = f"{p:.3f}"
            line["bits from clean"] = "–" if way == "clean" else f"{bits:.4f}"
            rows.append(line)
        table(pd.DataFrame(rows))
    with right:
        st.markdown("**What is predicted behind the last token**")
        columns = {}
        for way, row in zip(_WAYS, found.log_probs, strict=True):
            best = row.topk(min(_PREDICTIONS, len(row)))
            texts = spelled(best.indices.tolist())
            columns[_WAYS[way]] = [f"{t!r} {p:.3f}" for t, p in zip(texts, best.values.exp().tolist(), strict=True)]
        table(pd.DataFrame(columns), words=True)
    plain(
        f"The head's output at every position of this prompt is replaced: by zero, or by its mean over the first "
        f"{_MEAN_TOKENS} tokens of {found.n_texts} bundled texts. One prompt says little: what holds over many, with "
        "intervals and controls, is the effect in the runs below."
    )
