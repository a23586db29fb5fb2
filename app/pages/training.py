"""Training: heads while they form. One axis of time over a map of heads, attention and lens on one row of tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from app import state, store
from app.as_python import of_run
from app.components.text import details, notice, plain, table
from app.components.toolbar import toolbar
from app.components.training_player import player_data, starting_view, training_player
from interp.dynamics.played import Playback
from interp.dynamics.results import Emergence
from interp.errors import InputError, InterpError

_VIEW = {"step": "step", "head": "train_head", "kind": "train_kind"}  # of the player -> settings
_PARTNERS = 4  # measured runs of one model that are looked at for the one of the same training


def _choose() -> store.RunInfo | None:
    """A box over the playbacks, and the measured trainings that have none; None where there is neither."""
    good = [run for run in store.runs() if run.status == "ok"]
    played = [run for run in good if run.kind == "playback"]
    alone = [run for run in good if run.kind == "emergence" and run.model not in {one.model for one in played}]
    runs = {run.id: run for run in [*played, *alone]}
    chosen = state.get("training")
    if chosen is not None and chosen not in runs and (meant := _meant(chosen, good)):
        runs.setdefault(meant.id, meant)
        state.put("training", chosen := meant.id)
    if chosen is not None and chosen not in runs:
        instead = "Another one is shown instead." if runs else "Nor is there any other."
        state.refuse("training", f"There is no training {chosen} in {store.run_store().path}. {instead}", None)
        _forget()
        st.rerun()
    if not runs:
        return None
    chosen = chosen or next(iter(runs))
    bound = state.widget("training", chosen)

    def choose() -> None:
        bound["on_change"]()
        _forget()

    titles = {name: store.title(run) for name, run in runs.items()}
    st.selectbox("Training", list(runs), format_func=titles.__getitem__, key=bound["key"], on_change=choose)
    return runs[chosen]


def _meant(chosen: str, good: list[store.RunInfo]) -> store.RunInfo | None:
    """Of a run of measures that was asked for by its id: the playback of the same training, else this run itself."""
    asked = next((run for run in good if run.id == chosen and run.kind == "emergence"), None)
    if asked is None:
        return None
    about = store.opened(asked).about
    for run in [one for one in good if one.kind == "playback" and one.model == asked.model][:_PARTNERS]:
        if _is_of_one_training(store.opened(run).about, about):
            return run
    return asked


def _forget() -> None:
    """Another training has other checkpoints and heads."""
    for name in _VIEW.values():
        state.put(name, None)


def _measured(run: store.RunInfo, about: Mapping[str, Any]) -> tuple[store.RunInfo, Emergence] | None:
    """The newest run that measured the same training."""
    same_model = [one for one in store.runs() if one.status == "ok" and one.kind == "emergence"]
    for one in [one for one in same_model if one.model == run.model][:_PARTNERS]:
        try:
            found: Emergence = store.opened(one)
        except InterpError:
            continue
        if _is_of_one_training(about, found.about):
            return one, found
    return None


def _is_of_one_training(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    a, b = first.get("training"), second.get("training")
    if a is None or b is None:
        return a is b and first.get("model") == second.get("model") and bool({*first["steps"]} & {*second["steps"]})
    return all(a[name] == b[name] for name in a if name in b)


@st.cache_resource(max_entries=4, show_spinner=False)
def _data(folder: str, played: str, measured: str | None, _found: Playback, _grown: Emergence | None) -> dict[str, Any]:
    """What the player draws; the ids say of which runs. It is shared between sessions: nothing may write into it."""
    curves = _found.curves() if _grown is None else _grown.scores
    changes = None if _grown is None else _grown.changes
    return player_data(_found, curves, changes, id=f"{played} {measured or ''}")


def _start(run: store.RunInfo, found: Playback) -> dict[str, Any]:
    """Where the player begins in this session. It stays, so that its data are sent but once."""
    key = f"training starts {run.id}"
    if key not in st.session_state:
        asked: dict[str, Any] = {name: state.get(setting) for name, setting in _VIEW.items()}
        for name, setting in _VIEW.items():
            try:
                starting_view(found, **{**dict.fromkeys(_VIEW), name: asked[name]})
            except InputError as error:
                state.refuse(setting, str(error), None)
                asked[name] = None
        st.session_state[key] = starting_view(found, **asked)
        if state.complaints():
            st.rerun()
    return st.session_state[key]


def _play(run: store.RunInfo, found: Playback, grown: tuple[store.RunInfo, Emergence] | None) -> dict[str, Any]:
    """Draw the player; returns where the reader stands."""
    measured, emergence = grown if grown is not None else (None, None)
    start = _start(run, found)
    folder = str(store.run_store().path)
    data = _data(folder, run.id, None if measured is None else measured.id, found, emergence)
    came_to = training_player({**data, "start": start}, key="training player")
    if came_to is not None and _is_there(found, came_to):
        for name, setting in _VIEW.items():
            state.put(setting, came_to[name])
    now = {name: state.get(setting) for name, setting in _VIEW.items()}
    return starting_view(found, **{name: start[name] if value is None else value for name, value in now.items()})


def _is_there(found: Playback, view: dict[str, Any]) -> bool:
    try:
        starting_view(found, **view)
    except InputError:
        return False
    return True


def _changes(grown: Emergence) -> None:
    st.markdown("#### What changed, when, how sharply, and did the loss move")
    table(grown.summary(), height="26rem")
    plain(grown.describe())
    if len(grown.ablations):
        st.markdown("#### Heads set to their mean together")
        table(_ablations(grown))
        plain(
            "Change of the loss in nats (95%), beside random sets of as many other heads of the same layers. A set "
            "that changes no more than random ones has not been shown to matter."
        )


def _ablations(grown: Emergence) -> pd.DataFrame:
    rows = []
    for row in grown.ablations.to_dict("records"):
        line = {"step": f"{row['step']:,}", "heads of": row["set"], "heads": row["heads"], "loss": f"{row['loss']:.2f}"}
        line["change (95%)"] = f"{row['change']:+.2f} ({row['low']:+.2f} to {row['high']:+.2f})"
        random = "–" if pd.isna(row["random_mean"]) else f"{row['random_mean']:+.2f} (most {row['random_max']:+.2f})"
        rows.append(line | {"random sets": random, "of": row["n_random"]})
    return pd.DataFrame(rows)


def _tables(found: Playback, grown: Emergence | None, view: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """The numbers behind the drawings, by name."""
    scores = found.curves() if grown is None else grown.to_frame()
    heads, pattern = found.to_frame(), found.pattern(view["step"], view["head"])
    where, share = pattern.nonzero(), pattern[pattern.nonzero()]
    tables = {"series": scores, "heads": heads, "lens": found.read(view["step"])}
    tables["attention"] = pd.DataFrame({"q_pos": where[0], "k_pos": where[1], "weight": share})
    if grown is not None:
        tables |= {"changes": grown.changes, **({"ablations": grown.ablations} if len(grown.ablations) else {})}
    return tables


def _beside(tables: Mapping[str, pd.DataFrame], view: Mapping[str, Any]) -> None:
    """The drawings of this checkpoint as tables."""
    with st.expander(f"Step {view['step']:,} as tables"):
        here = tables["series"].loc[tables["series"]["step"] == view["step"]].drop(columns="step")
        table(_rounded(here), height="18rem")
        heads = tables["heads"]
        wide = heads.loc[heads["step"] == view["step"]].pivot(index="head", columns="kind", values="score")
        table(_rounded(wide.reset_index()), height="18rem")
        strongest = tables["attention"].sort_values("weight", ascending=False, kind="stable").head(200)
        plain(f"Attention of {view['head']}, the 200 largest weights")
        table(_rounded(strongest), height="18rem")
        table(_rounded(tables["lens"]), height="18rem")


def _rounded(rows: pd.DataFrame) -> pd.DataFrame:
    """Numbers to three digits, and a dash for those that are not there."""
    floats = rows.select_dtypes("float").columns
    texts = {name: [f"{one:.3f}" if one == one else "–" for one in rows[name].tolist()] for name in floats}
    return rows.assign(**texts)


def _code(run: store.RunInfo, grown: store.RunInfo | None, view: Mapping[str, Any]) -> str:
    lines = [f"print(found.pattern({view['step']!r}, {view['head']!r}))", f"print(found.read({view['step']!r}))"]
    lines.append(f"print(found.to_frame().query({'kind == ' + repr(view['kind'])!r}))")
    if grown is not None:
        path = str(store.run_store().path.absolute())
        lines += [f"grown = interp.RunStore({path!r}).open({grown.id!r}).results()", "print(grown)"]
    return of_run(run.id, *lines)


def _only_measured(run: store.RunInfo) -> None:
    """A training that was measured, and of which nothing is kept to play."""
    grown: Emergence = store.opened(run)
    tables = {"series": grown.scores, "changes": grown.changes}
    toolbar("training", of_run(run.id, "print(found)"), tables, page=grown.to_html)
    notice(
        "Of this training only series are stored, so there is nothing to play. interp emergence FOLDER --store "
        f"{store.run_store().path} keeps both; a playback alone is made by interp.dynamics.playback."
    )
    figure = grown.plot()
    figure.update_layout(title=None, margin={"t": 24, "l": 8, "r": 8, "b": 8})
    st.plotly_chart(figure, key="series", config={"displaylogo": False})
    _changes(grown)


run = _choose()
shown: dict[str, Any] = {}
if run is None:
    notice(
        "The store holds no training yet. Train a small model and measure it: interp train induction --out "
        f"runs/induction, and then interp emergence runs/induction --store {store.run_store().path}"
    )
elif run.kind == "emergence":
    _only_measured(run)
    shown = {"training": run.id}
else:
    playback: Playback = store.opened(run)
    partner = _measured(run, playback.about)
    bar = st.container()
    view = _play(run, playback, partner)
    measured = None if partner is None else partner[1]
    tables = _tables(playback, measured, view)
    with bar:
        page = None if measured is None else measured.to_html
        toolbar("training", _code(run, None if partner is None else partner[0], view), tables, page=page)
    _beside(tables, view)
    if measured is not None:
        _changes(measured)
    else:
        notice("No measured series of this training are stored, so nothing is dated. Make them: interp emergence.")
    with st.expander("What is played"):
        plain(playback.describe())
        left = ("ids", "source_ids", "names", "tokens", "following", "source", "steps")
        table(details({name: one for name, one in playback.about.items() if name not in left}), words=True)
    shown = {"training": run.id} | {_VIEW[name]: value for name, value in view.items()}
state.write_back(**shown)
