"""A graph of tokens by layers, its exports, and what attention alone says about it: rollout and flow."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from interp.errors import InputError, StorageError
from interp.figures.graph import token_graph
from interp.figures.page import figure_html, write_page
from interp.files import read_json, write_json, write_text
from interp.results.frames import about_html, load_frames, save_frames

__all__ = ["AttentionGraph"]

_KIND, _FORMAT = "attention graph", 1
_ROLLOUT = (
    "Not causal: rollout multiplies ½(A + I), attention averaged over heads, layer by layer (Abnar & Zuidema 2020). It "
    "takes attention for influence, and leaves out values, what is written, and MLPs."
)
_FLOW = (
    "Not causal: flow is the most that could pass from a token to the query if ½(A + I), attention averaged over "
    "heads, were capacities of pipes (Abnar & Zuidema 2020). It leaves out values, what is written, and MLPs, and "
    "flows of several tokens do not add up."
)


@dataclass(frozen=True)
class AttentionGraph:
    """`edges`: one row per shown edge: layer, head (absent where heads were put together), source, target, `weight` and
    `attention`. It leads from (layer, source) to (layer + 1, target). `nodes`: layer (n_layers is the end), pos, and
    the `norm` of the residual there. `patterns [layer q_pos k_pos]`: attention averaged over heads. `faithfulness`:
    what `interp.graph_faithfulness` measured, empty until then.
    """

    edges: pd.DataFrame
    nodes: pd.DataFrame
    patterns: np.ndarray
    about: Mapping[str, Any] = field(default_factory=dict)
    faithfulness: pd.DataFrame = field(default_factory=pd.DataFrame)

    def to_frame(self) -> pd.DataFrame:
        """One row per edge, with the tokens it joins, the heaviest first."""
        table, text = self.edges.copy(), self.about.get("text", [])
        for side in ("source", "target"):
            table[f"{side}_token"] = [text[int(pos)] if text else str(pos) for pos in table[side]]
        return table.sort_values("weight", ascending=False, kind="stable", ignore_index=True)

    @property
    def values(self) -> xr.DataArray:
        """Weights as `[layer, head, target, source]` (one head, -1, where they were put together); NaN: not shown."""
        n_pos, n_layers = self.patterns.shape[1], self.patterns.shape[0]
        heads = sorted({-1 if pd.isna(one) else int(one) for one in self.edges["head"]}) or [-1]
        grid = np.full((n_layers, len(heads), n_pos, n_pos), np.nan)
        place = {head: i for i, head in enumerate(heads)}
        rows: Any = self.edges.itertuples(index=False)
        for row in rows:
            head = -1 if pd.isna(row.head) else int(row.head)
            grid[int(row.layer), place[head], int(row.target), int(row.source)] = row.weight
        coords = {"layer": range(n_layers), "head": heads, "target": range(n_pos), "source": range(n_pos)}
        return xr.DataArray(grid, coords={k: list(v) for k, v in coords.items()}, dims=tuple(coords))

    # ---- what attention alone says ----

    def rollout(self) -> xr.DataArray:
        """`[q_pos, k_pos]`: ∏ ½(A + I) over the layers. Rows sum to 1; `.attrs["warning"]` says what it leaves out."""
        n_pos = self.patterns.shape[1]
        found = np.eye(n_pos)
        for pattern in self.patterns:
            found = 0.5 * (pattern + np.eye(n_pos)) @ found
        return self._named(found, _ROLLOUT)

    def flow(self, query: int = -1) -> xr.DataArray:
        """`[k_pos]`: the maximum flow from each token to the query behind the last layer; `.attrs["warning"]` says
        what it leaves out. Cost: one maximum flow on n_layers × n_pos nodes per token, in Python: seconds for 20."""
        import networkx as nx

        n_layers, n_pos, _ = self.patterns.shape
        if isinstance(query, bool) or not isinstance(query, int) or not -n_pos <= query < n_pos:
            raise InputError(f"query is {query!r}; this text has positions 0 to {n_pos - 1}.")
        pipes, end = nx.DiGraph(), (n_layers, query % n_pos)
        pipes.add_nodes_from((layer, pos) for layer in range(n_layers + 1) for pos in range(n_pos))
        for layer, pattern in enumerate(self.patterns):
            capacity = 0.5 * (pattern + np.eye(n_pos))
            for target, source in zip(*np.nonzero(capacity), strict=True):
                pipes.add_edge((layer, int(source)), (layer + 1, int(target)), capacity=float(capacity[target, source]))
        found = [nx.maximum_flow_value(pipes, (0, source), end) for source in range(n_pos)]
        coords = {"k_pos": np.arange(n_pos)}
        return xr.DataArray(np.array(found, dtype=float), coords=coords, dims="k_pos", attrs={"warning": _FLOW})

    # ---- exports ----

    def to_networkx(self) -> Any:
        """A MultiDiGraph: nodes "layer:pos" with layer, pos, token and norm; edges of kind "attention" (weight,
        attention, layer, and head where they are kept apart) and "residual" (weight: the norm that is carried on).
        Characters of a token that XML cannot hold are the replacement character; then `token_json` is it as JSON."""
        import networkx as nx

        graph = nx.MultiDiGraph(model=str(self.about.get("model", "")), edge=str(self.about.get("edge", "")))
        text = self.about.get("text", [])
        norms = {}
        nodes: Any = self.nodes.itertuples(index=False)
        for row in nodes:
            layer, pos, norm = int(row.layer), int(row.pos), float(row.norm)
            own = text[pos] if text else ""
            token = _legal(own)
            exact = {} if token == own else {"token_json": json.dumps(own)}
            graph.add_node(f"{layer}:{pos}", layer=layer, pos=pos, token=token, norm=norm, **exact)
            norms[layer, pos] = norm
        n_layers = self.patterns.shape[0]
        for (layer, pos), norm in norms.items():
            if layer < n_layers:
                graph.add_edge(f"{layer}:{pos}", f"{layer + 1}:{pos}", key="residual", kind="residual", weight=norm)
        edges: Any = self.edges.itertuples(index=False)
        for row in edges:
            layer, name = int(row.layer), "attention" if pd.isna(row.head) else f"{row.layer}.{row.head}"
            extra = {} if pd.isna(row.head) else {"head": int(row.head)}
            numbers = {"weight": float(row.weight), "attention": float(row.attention), "layer": layer}
            ends = f"{layer}:{int(row.source)}", f"{layer + 1}:{int(row.target)}"
            graph.add_edge(*ends, key=name, kind="attention", **numbers, **extra)
        return graph

    def to_graphml(self, path: str | os.PathLike[str]) -> Path:
        """Write GraphML, for Gephi, Cytoscape, yEd or `networkx.read_graphml`: what `to_networkx` gives."""
        import networkx as nx

        write_text(path, "\n".join(nx.generate_graphml(self.to_networkx())) + "\n")
        return Path(path)

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """Everything as one JSON document, which `from_json` reads back; also written to `path` where it is given."""
        data = {"kind": _KIND, "format": _FORMAT, **self.to_records(), "patterns": self.patterns.tolist()}
        if path is not None:
            write_json(path, data)
        return json.dumps(data, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, source: str | os.PathLike[str]) -> AttentionGraph:
        """Read what `to_json` gave: a path, or the document itself."""
        document = isinstance(source, str) and source.lstrip().startswith("{")
        try:
            data = json.loads(str(source)) if document else read_json(source)
            if data.get("kind") != _KIND or data.get("format") != _FORMAT:
                raise StorageError(f"This is no attention graph of format {_FORMAT}.")
            tables = [pd.DataFrame(data[name]) for name in ("edges", "nodes", "faithfulness")]
            return cls(_typed(tables[0]), tables[1], np.array(data["patterns"], float), data["about"], tables[2])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StorageError(f"This is no attention graph: {error!r}") from error

    def to_records(self) -> dict[str, Any]:
        """The tables as plain data for JSON."""
        tables = {"edges": self.edges, "nodes": self.nodes, "faithfulness": self.faithfulness}
        found: dict[str, Any] = {name: _exact_records(table) for name, table in tables.items()}
        return {**found, "about": dict(self.about)}

    # ---- for people ----

    def with_faithfulness(self, table: pd.DataFrame) -> AttentionGraph:
        """The same graph with what was measured of it."""
        return replace(self, faithfulness=table)

    def summary(self, n: int = 10) -> pd.DataFrame:
        """The heaviest edges as text."""
        rows = []
        for row in self.to_frame().head(n).to_dict("records"):
            name = f"layer {row['layer']}" if pd.isna(row["head"]) else f"{row['layer']}.{row['head']}"
            ends = (f"{row[f'{side}_token']!r} ({row[side]})" for side in ("source", "target"))
            rows.append({"head" if not pd.isna(row["head"]) else "layer": name, "edge": " → ".join(ends)})
            rows[-1] |= {"weight": f"{row['weight']:.3f}", "attention": f"{row['attention']:.2f}"}
        return pd.DataFrame(rows)

    def describe(self) -> str:
        """How edges were chosen, what was measured, and what is left out."""
        about, shown = self.about, len(self.edges)
        said = f"{shown} of {about.get('candidates')} edges ({about.get('edge')}"
        said += f", {about['combine']} over heads)" if about.get("combine") else ", head by head)"
        for name in ("threshold", "top_k", "to"):
            said += f", {name} {about[name]}" if about.get(name) is not None else ""
        for row in self.faithfulness.to_dict("records"):
            if row["graph"] == "shown":
                said += (
                    f". Faithfulness {row['faithfulness']:.3f} of {row['metric']} (1: the whole model, 0: every edge "
                    "mean-ablated)"
                )
            if row["graph"] == "random":
                said += f"; random edges, as many in each layer: {row['faithfulness']:.3f}"
        return f"{said}. {about.get('left_out', '')}"

    def plot(self) -> Any:
        """A plotly figure: tokens across, layers upwards, edges as wide as their weight."""
        text = self.about.get("text") or [str(i) for i in range(self.patterns.shape[1])]
        title = f"attention graph of {self.about.get('model')}: {len(self.edges)} edges"
        return token_graph(self.edges, text, self.patterns.shape[0], title=title)

    def to_html(self, path: str | os.PathLike[str]) -> Path:
        """Write a self-contained page: the graph, the heaviest edges, what was measured."""
        sections = [figure_html(self.plot(), "graph"), about_html(repr(self), self.describe(), self.summary(30))]
        if len(self.faithfulness):
            sections.append(about_html("Faithfulness", "", self.faithfulness))
        return write_page(path, f"Attention graph of {self.about.get('model', 'a model')}", sections)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a folder: tables and about.json, all or nothing."""
        flat = pd.DataFrame({"attention": self.patterns.ravel()})
        tables = {"edges": self.edges, "nodes": self.nodes, "patterns": flat, "faithfulness": self.faithfulness}
        return save_frames(path, _KIND, _FORMAT, self.about, tables)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> AttentionGraph:
        """Read what `save` wrote; raises `StorageError` for a damaged or newer folder."""
        about, tables = load_frames(path, _KIND, _FORMAT, ("edges", "nodes", "patterns", "faithfulness"))
        n_pos = len(about.get("tokens", []))
        try:
            patterns = tables["patterns"]["attention"].to_numpy(dtype=float).reshape(-1, n_pos, n_pos)
        except (KeyError, ValueError) as error:
            raise StorageError(f"Cannot read the graph in {path}: {error}") from error
        return cls(_typed(tables["edges"]), tables["nodes"], patterns, about, tables["faithfulness"])

    def _named(self, grid: np.ndarray, warning: str) -> xr.DataArray:
        at = np.arange(len(grid))
        return xr.DataArray(grid, {"q_pos": at, "k_pos": at}, ("q_pos", "k_pos"), attrs={"warning": warning})

    def __repr__(self) -> str:
        n_layers, n_pos, _ = self.patterns.shape
        return (
            f"AttentionGraph({n_pos} tokens × {n_layers} layers, {len(self.edges)} edges by {self.about.get('edge')})"
        )

    def __str__(self) -> str:
        return f"{self.summary().to_string(index=False)}\n{self.describe()}"

    def _repr_html_(self) -> str:
        return about_html(repr(self), self.describe(), self.summary())


def _exact_records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain data, numbers to the last digit (pandas' own JSON keeps ten)."""
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records") if len(frame) else []
    return [{str(key): one.item() if hasattr(one, "item") else one for key, one in row.items()} for row in rows]


def _typed(edges: pd.DataFrame) -> pd.DataFrame:
    """Whole numbers that may be absent, as they were before the trip through a file."""
    columns = ["layer", "head", "source", "target", "weight", "attention"]
    edges = edges.reindex(columns=columns)
    return edges.astype({name: "Int64" if name in columns[:4] else "float64" for name in columns})


def _legal(text: str) -> str:
    """Text that XML can hold; a carriage return is none, since XML readers make a line feed of it."""
    return "".join(
        c if c in "\t\n" or 32 <= ord(c) <= 0xD7FF or 0xE000 <= ord(c) < 0xFFFE or ord(c) > 0xFFFF else "�"
        for c in text
    )
