"""`interp ov`, `composition`, `graph`, `cues`: what a head writes, who reads whom, what moves, which cue decides."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from interp.cli.asking import Html, ModelName, Out, Store, ask
from interp.cli.output import AsJson
from interp.cli.results import print_result, result_as_json
from interp.cli.showing import print_frame, print_said, records_of
from interp.errors import InputError

__all__ = ["composition", "cues", "graph", "ov"]


def ov(
    model: ModelName,
    head: Annotated[str, typer.Argument(help="layer.head, as in 23.4.")],
    text: Annotated[str | None, typer.Option(help="A text; the head's token in it is --pos.")] = None,
    pos: Annotated[int, typer.Option(help="Index of the token attended to; negative counts from the end.")] = -1,
    token: Annotated[str | None, typer.Option(help="A token without context, e.g. ' France'.")] = None,
    answer: Annotated[str | None, typer.Option(help="With --text: what the head adds to it, by source token.")] = None,
    foil: Annotated[str | None, typer.Option(help="And takes from this one.")] = None,
    copying: Annotated[bool, typer.Option("--copying", help="Copying scores instead.")] = False,
    k: Annotated[int, typer.Option("--k", "-k", help="Tokens shown, promoted and suppressed.")] = 10,
    store: Store = None,
    html: Html = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Show what a head writes: of a token in a text, of a token alone, or of the mean token."""
    if text is not None and token is not None:
        raise InputError("--text and --token are two questions. Give one of them.")
    if (answer is not None and text is None) or (foil is not None and answer is None):
        raise InputError("--answer needs --text, and --foil needs --answer.")

    def question(loaded: Any) -> Any:
        import interp

        circuit = interp.ov(loaded, head)
        if copying:
            return circuit.copying()
        if text is not None and answer is not None:
            return circuit.attribution(text, answer, foil, query=pos)
        if text is not None:
            return circuit.tokens(text, pos, k=k)
        return circuit.whole(k=k) if token is None else circuit.token(token, k=k)

    spec = {"analysis": "ov", "head": head, "text": text, "pos": pos, "token": token, "answer": answer, "foil": foil}
    kept: dict[str, Any] = {"store": store, "html": html, "out": out, "as_json": as_json}
    title = f"what head {head} of {model} writes"
    ask(model, question, {**spec, "copying": copying, "k": k}, print_result, result_as_json, title=title, **kept)


def composition(
    model: ModelName,
    kind: Annotated[str, typer.Option(help="Q, K or V: what of the later head reads.")] = "K",
    into: Annotated[str | None, typer.Option(help="Only what this head reads, e.g. 18.6.")] = None,
    folded: Annotated[bool, typer.Option("--folded", help="With the gains of the norms.")] = False,
    n: Annotated[int, typer.Option("--n", "-n", help="Pairs shown.")] = 15,
    store: Store = None,
    html: Html = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Score how strongly what each head writes enters the queries, keys or values of later ones, by weights alone."""
    from interp.sites import Head

    reader = None if into is None else Head.parse(into)
    kept: dict[str, Any] = {"store": store, "html": html, "out": out, "as_json": as_json}

    def question(loaded: Any) -> Any:
        import interp

        found = interp.composition(loaded, kind, folded=folded)  # type: ignore[arg-type]
        if reader is not None:
            found.into(reader.layer, reader.head)  # refuses a head that there is not
        return found

    def show(found: Any) -> None:
        if reader is None:
            print_result(found, n)
            return
        table = found.to_frame()
        table = table.loc[(table["to_layer"] == reader.layer) & (table["to_head"] == reader.head)].head(n)
        print_said(repr(found))
        print_frame(table.round(3).astype({"from_layer": str, "from_head": str}))
        print_said(found.leaves_out)

    spec = {"analysis": "composition", "kind": kind, "folded": folded}
    ask(model, question, spec, show, result_as_json, title=f"{kind}-composition of {model}", **kept)


def graph(
    model: ModelName,
    text: Annotated[str, typer.Argument(help="The prompt.")],
    top_k: Annotated[int, typer.Option(help="Edges that are kept, the heaviest.")] = 200,
    answer: Annotated[str | None, typer.Option(help="Measure how much of this answer the kept edges keep.")] = None,
    foil: Annotated[str | None, typer.Option(help="Measure the difference from this one.")] = None,
    graphml: Annotated[Path | None, typer.Option(help="Also write the graph as GraphML here.")] = None,
    store: Store = None,
    html: Html = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Show which edges of attention move most, and how much of an answer survives on them."""
    if foil is not None and answer is None:
        raise InputError("--foil needs --answer.")
    kept: dict[str, Any] = {"store": store, "html": html, "out": out, "as_json": as_json, "places": (graphml,)}

    def question(loaded: Any) -> Any:
        import interp
        from interp.tasks.natural_text import passages

        found = interp.attention_graph(loaded, text, top_k=top_k)
        if answer is None:
            return found
        return interp.graph_faithfulness(loaded, found, answer=answer, foil=foil, reference=passages())

    def show(found: Any) -> None:
        print_frame(found.summary(12))
        print_said(found.describe())

    spec = {"analysis": "graph", "text": text, "top_k": top_k, "answer": answer, "foil": foil}
    found = ask(model, question, spec, show, records_of, title=f"attention graph of {model}: {text}", **kept)
    if graphml is not None:
        found.to_graphml(graphml)


def cues(
    model: ModelName,
    task: Annotated[str, typer.Option(help="coreference or agreement.")] = "coreference",
    n: Annotated[int, typer.Option("--n", "-n", help="Items; each is written in all combinations of its cues.")] = 32,
    top: Annotated[int, typer.Option(help="Heads tested exactly for each cue, by each of two ways to choose.")] = 4,
    seed: Annotated[int, typer.Option(help="Which items are drawn.")] = 0,
    store: Store = None,
    html: Html = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Let cues compete: what each does to the answer, which heads carry it, and how their parts add up."""

    def question(loaded: Any) -> Any:
        import interp

        return interp.cue_competition(loaded, task, n=n, top=top, seed=seed)  # type: ignore[arg-type]

    def show(found: Any) -> None:
        print_frame(found.summary(), left=("cue",))
        for measure in dict.fromkeys(found.parts["measure"]):
            print_frame(_rounded(found.top(4, measure)), title=f"Heads: {measure}", left=("cue", "part"))
        print_said(found.describe())

    spec = {"analysis": "cues", "task": task, "n": n, "top": top, "seed": seed}
    kept: dict[str, Any] = {"store": store, "html": html, "out": out, "as_json": as_json}
    ask(model, question, spec, show, records_of, title=f"competing cues in {task}, {model}", **kept)


def _rounded(table: Any) -> Any:
    """Numbers as text; a p that would round to 0 as what it is below."""
    shown = table.copy()
    shown["p_corrected"] = ["< 0.001" if p < 0.001 else f"{p:.3f}" for p in table["p_corrected"]]
    for name in ("value", "low", "high"):
        shown[name] = [f"{one:+.3f}" for one in table[name]]
    return shown
