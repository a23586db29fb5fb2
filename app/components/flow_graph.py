"""An attention graph on one canvas: threshold, hover and pinned nodes without a server trip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from streamlit.components.v2 import component

from interp.results.attention_graph import AttentionGraph

__all__ = ["flow_data", "flow_graph"]

_HERE = Path(__file__).parent
_SCRIPTS = ("colour.js", "tokens.js", "flow_graph.js")
_component = component(
    "interp.flow_graph",
    html=(_HERE / "flow_graph.html").read_text(),
    css=(_HERE / "flow_graph.css").read_text(),
    js="".join((_HERE / name).read_text() for name in _SCRIPTS),
)


def flow_graph(graph: AttentionGraph, tokens: list[str], *, budget: int, key: str) -> int | None:
    """Draw a graph, of its heaviest edges those that touch at most `budget`
    nodes; returns the number of edges that the reader just asked to keep, else None."""
    kept = _component(key=key, data=flow_data(graph, tokens) | {"budget": budget}, on_keep_change=lambda: None).keep
    return kept if isinstance(kept, int) and 0 < kept <= len(graph.edges) else None


def flow_data(graph: AttentionGraph, tokens: list[str]) -> dict[str, Any]:
    """Edges as plain lists, the heaviest first; `head` is −1 where heads were put together."""
    edges = graph.edges.sort_values("weight", ascending=False, kind="stable")
    whole = {name: edges[name].fillna(-1).astype(int).tolist() for name in ("layer", "head", "source", "target")}
    shares = {name: [float(f"{one:.5g}") for one in edges[name]] for name in ("weight", "attention")}
    apart = graph.about.get("combine") is None
    may_keep = graph.about.get("to") is None  # else the heaviest edges are cut again to those that reach it
    about = {"tokens": tokens, "layers": int(graph.about["n_layers"]), "apart": apart, "may_keep": may_keep}
    return {**about, **whole, **shares}
