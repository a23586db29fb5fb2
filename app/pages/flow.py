"""Flow: the edges of attention that move most, as a graph of tokens by layers, and how much of an answer they carry."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

import interp
from app import models, state
from app.as_python import call, of_prompt
from app.components.flow_graph import flow_graph
from app.components.text import notice, plain, table
from app.components.toolbar import Frames, toolbar
from app.computing import computed, known
from app.keeping import keep
from app.question import named, question_form, read, token
from interp.errors import InputError
from interp.figures.signed_bars import signed_bars
from interp.results.attention_graph import AttentionGraph
from interp.tasks.natural_text import passages

_MAX_TOKENS, _MAX_EDGES, _MAX_NODES = 96, 1000, 2000
_WEIGHTS = {"moved": "size of what is moved", "share": "share of the residual", "attention": "attention itself"}
_ALONE = {"rollout": "rollout", "flow": "maximum flow"}
_REFERENCE_BYTES = 150_000_000  # of the attention patterns of reference texts
_SHOWN = 12  # rows of tables


def _choose() -> tuple[int, str, bool, bool]:
    """How many edges are kept, what weighs them, whether heads are kept apart, and whether all lead to the end."""
    edges, weight = state.get("edges"), state.get("weight")
    if not 1 <= edges <= _MAX_EDGES:
        state.refuse("edges", f"{edges} edges cannot be drawn; ask for 1 to {_MAX_EDGES}.", 150)
        st.rerun()
    if not 2 <= state.get("nodes") <= _MAX_NODES:
        state.refuse("nodes", f"{state.get('nodes')} nodes cannot be drawn; ask for 2 to {_MAX_NODES}.", 200)
        st.rerun()
    if weight not in _WEIGHTS:
        state.refuse("weight", f"Edges have no weight {weight}; there are {', '.join(_WEIGHTS)}.", "moved")
        st.rerun()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.number_input("Edges kept", 1, _MAX_EDGES, width=150, step=10, **state.widget("edges", edges))
        st.number_input(
            "Nodes drawn at most",
            2,
            _MAX_NODES,
            width=170,
            step=20,
            help="Only thins the drawing: tables, measures and files are of all edges that are kept.",
            **state.widget("nodes", state.get("nodes")),
        )
        st.selectbox(
            "Weighed by", list(_WEIGHTS), format_func=_WEIGHTS.__getitem__, width=230, **state.widget("weight", weight)
        )
        st.toggle("Heads apart", **state.widget("apart", state.get("apart")))
        st.toggle(
            "Only what reaches the last token",
            help="Leaves out edges from which the last token at the end cannot be reached along kept ones.",
            **state.widget("to_last", state.get("to_last")),
        )
    return edges, weight, state.get("apart"), state.get("to_last")


def _graph(model: str, prompt: models.ReadPrompt, asked: tuple[int, str, bool, bool]) -> AttentionGraph | None:
    edges, weight, apart, to_last = asked

    def work() -> AttentionGraph:
        edge: Any = weight
        combine: Any = None if apart else "sum"
        to = -1 if to_last else None
        ids = [list(prompt.ids)]
        return interp.attention_graph(models.loaded(model), ids, top_k=edges, edge=edge, combine=combine, to=to)

    return computed(
        f"Attention graph of {len(prompt.ids)} tokens in {model}",
        ("graph", models.content_hash(model), prompt.ids, asked),
        work,
    )


def _draw(graph: AttentionGraph, tokens: list[str]) -> None:
    kept = flow_graph(graph, tokens, budget=state.get("nodes"), key="graph")
    if kept is not None and kept != state.get("edges"):
        state.put("edges", kept)
        st.rerun()
    about = graph.about
    said = f"{len(graph.edges):,} of {about['candidates']:,} edges; node (layer, token) is the token as it enters it."
    if about.get("cut_off_from_to"):
        said += f" {about['cut_off_from_to']} of the heaviest do not reach the last token and were left out."
    plain(f"{said} {about['left_out']}")


def _export(graph: AttentionGraph) -> None:
    """Files of the whole graph, made when they are asked for."""
    with st.container(horizontal=True):
        for name, make, mime in (
            ("JSON", lambda: graph.to_json().encode(), "application/json"),
            ("GraphML", lambda: _graphml(graph), "application/xml"),
        ):
            file = f"attention_graph.{name.lower()}"
            st.download_button(f"Download {name}", make, file, mime, on_click="ignore", icon=":material/download:")


def _graphml(graph: AttentionGraph) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return graph.to_graphml(Path(folder) / "graph").read_bytes()


def _faithfulness(model: str, prompt: models.ReadPrompt, graph: AttentionGraph, asked: tuple[Any, ...]) -> Any:
    """What was measured of this graph, or a button; returns the key of the measured graph where there is one."""
    st.markdown("#### How much of the answer survives on these edges alone")
    try:
        answer, foil = (token(model, prompt, what, len(prompt.ids) - 1) for what in ("answer_token", "foil_token"))
    except InputError as error:
        notice(str(error), "error")
        return None

    def work() -> AttentionGraph:
        own = models.loaded(model)
        rows = _reference(own, prompt)
        return interp.graph_faithfulness(own, graph, answer=answer, foil=foil, reference=rows)

    key = ("faithfulness", models.content_hash(model), prompt.ids, asked, answer, foil)
    note = "Every other edge is set to its mean over bundled texts; ten random graphs are the control."
    name = f"Faithfulness of {len(graph.edges)} edges in {model}"
    found: AttentionGraph | None = computed(name, key, work, button="Measure faithfulness", note=note)
    if found is None:
        return None
    measured = found.faithfulness
    table(_as_text(measured))
    plain(
        "1: as the whole model; 0: as with every edge of attention at its mean. Random graphs have as many edges in "
        f"each layer; p is the share of them that do as well, this one counted. {_asked(found)}"
    )
    return key


def _as_text(measured: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for row in measured.to_dict("records"):
        line = {"graph": row["graph"], "edges": "all" if pd.isna(row["edges"]) else f"{row['edges']:.0f}"}
        line |= {str(row["metric"]): f"{row['value']:.3f}", "faithfulness": f"{row['faithfulness']:.3f}"}
        if not pd.isna(row["lowest"]):
            line["faithfulness"] += f" ({row['lowest']:.3f} to {row['highest']:.3f})"
        rows.append(line | {"p": "–" if pd.isna(row["p"]) else f"{row['p']:.2g}"})
    return pd.DataFrame(rows)


def _asked(found: AttentionGraph) -> str:
    said: dict[str, Any] = dict(found.about.get("faithfulness", {}))
    rows = str(said.get("reference")).removeprefix("the texts given: ")
    return f"Means are over the beginnings of bundled texts: {rows}. MLPs are left to react."


def _reference(model: Any, prompt: models.ReadPrompt) -> list[list[int]]:
    """Beginnings of bundled texts, as long as the prompt, as many as fit into memory."""
    n_pos = len(prompt.ids)
    rows = [model.tokenizer.encode(text, prepend_bos=prompt.has_bos)[:n_pos] for text in passages()]
    fitting = [row for row in rows if len(row) == n_pos]
    return fitting[: _rows_that_fit(model, n_pos)]


def _rows_that_fit(model: Any, n_pos: int) -> int:
    heads = sum(block.attn.n_heads for block in model.main.config.blocks)
    return max(4, _REFERENCE_BYTES // (4 * heads * n_pos * n_pos))


def _attention_alone(model: str, prompt: models.ReadPrompt, graph: AttentionGraph) -> None:
    st.markdown("#### What attention alone would pass on")
    way, pos = state.get("alone"), state.get("pos")
    if way not in _ALONE:
        state.refuse("alone", f"There is no way {way}; there are {', '.join(_ALONE)}.", "rollout")
        st.rerun()
    if pos is not None and pos >= len(prompt.ids):
        state.refuse("pos", f"There is no position {pos}; this prompt has 0 to {len(prompt.ids) - 1}.", None)
        st.rerun()
    pos = len(prompt.ids) - 1 if pos is None else pos
    places = list(range(len(prompt.ids)))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.selectbox("As", list(_ALONE), format_func=_ALONE.__getitem__, width=200, **state.widget("alone", way))
        bound = state.widget("pos", pos)
        st.selectbox("To", places, format_func=lambda one: named(prompt.tokens, one), width=240, **bound)
    if way == "rollout":
        rolled = graph.rollout()
        values, warning = rolled.values[pos], rolled.attrs["warning"]
    else:
        key = ("flow", models.content_hash(model), prompt.ids, pos)
        found = computed(f"Flow to token {pos} in {model}", key, lambda: graph.flow(pos), button="Compute flow")
        if found is None:
            return
        values, warning = found.values, found.attrs["warning"]
    notice(warning, "warning")
    _sources(values, prompt.tokens, _ALONE[way])


def _sources(values: np.ndarray, tokens: list[str], way: str) -> None:
    order = np.argsort(-values, kind="stable")[:_SHOWN]
    names = [named(tokens, int(i)) for i in order]
    left, right = st.columns([5, 4], gap="medium")
    with left:
        figure = signed_bars(names, values[order].tolist(), title="", name=way)
        figure.update_layout(title=None, height=60 + 24 * len(order), margin={"t": 8, "l": 8, "r": 8, "b": 8})
        figure.update_traces(marker_color="#3182bd")
        st.plotly_chart(figure, key="sources", config={"displaylogo": False})
    with right:
        table(pd.DataFrame({"source": names, way: [f"{one:.4f}" for one in values[order]]}))


def _code(model: str, prompt: models.ReadPrompt, asked: tuple[int, str, bool, bool], measured: Any) -> list[str]:
    """Code of the graph, and of its faithfulness where that was measured."""
    edges, weight, apart, to_last = asked
    options: dict[str, Any] = {"top_k": edges, "edge": weight, "to": -1 if to_last else None}
    given = ["combine=None"] if apart else ["combine='sum'"]
    lines = [call("attention_graph", "model", "tokens", *given, result="graph", **options)]
    if measured:
        lines += [
            "from interp.tasks.natural_text import passages",
            f"rows = [model.tokenizer.encode(text, prepend_bos={prompt.has_bos}) for text in passages()]",
            f"rows = [row[:{len(prompt.ids)}] for row in rows if len(row) >= {len(prompt.ids)}]",
            f"rows = rows[:{_rows_that_fit(models.loaded(model), len(prompt.ids))}]",
            call("graph_faithfulness", "model", "graph", "reference=rows", result="graph",
                 answer=measured[-2], foil=measured[-1]),
        ]  # fmt: skip
        return [*lines, "print(graph.faithfulness)"]
    return [*lines, "print(graph.to_frame())"]


def _address(model: str) -> None:
    """The address of what is asked: once before it is computed, so that a link copied meanwhile is of it, and once
    with what was chosen on the way."""
    names = (
        "prompt",
        "bos",
        "answer_token",
        "foil_token",
        "edges",
        "nodes",
        "weight",
        "apart",
        "to_last",
        "alone",
        "pos",
    )
    state.write_back(
        model=model if model != models.default_model() else None, **{name: state.get(name) for name in names}
    )


model_name = question_form("answer_token", "foil_token", button="Draw")
prompt = read(model_name, limit=_MAX_TOKENS)
if prompt is not None:
    asked = _choose()
    _address(model_name)
    graph = _graph(model_name, prompt, asked)
    if graph is not None:
        bar = st.container()
        _draw(graph, prompt.tokens)
        left, right = st.columns([1, 1], gap="large")
        with left:
            st.markdown("#### Heaviest edges")
            table(graph.summary(_SHOWN))
        with right:
            measured = _faithfulness(model_name, prompt, graph, asked)
        whole = known(measured) or graph if measured else graph
        _export(whole)
        spec = {"analysis": "graph", "text": state.get("prompt"), "bos": prompt.has_bos, "tokens": list(prompt.ids)}
        spec |= dict(zip(("top_k", "edge", "apart", "to_last"), asked, strict=True))
        spec |= {"answer": measured[-2], "foil": measured[-1]} if measured else {}
        keep(
            whole,
            ("graph", models.content_hash(model_name), prompt.ids, asked, measured),
            model_name,
            spec,
            f"attention graph of {model_name}: {state.get('prompt')}",
        )
        _attention_alone(model_name, prompt, graph)
        with bar:
            tables: Frames = {"edges": graph.to_frame}
            if measured and known(measured) is not None:
                tables = {**tables, "faithfulness": whole.faithfulness}
            toolbar(
                "flow",
                of_prompt(model_name, prompt, *_code(model_name, prompt, asked, measured)),
                tables,
                page=whole.to_html,
            )
_address(model_name)
