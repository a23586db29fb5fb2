"""`probes.dataset`: the activations that labels are decoded from, at every site in one pass over the texts."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp.errors import InputError
from interp.model.identity import model_hash
from interp.model.taps import active_writes
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.tasks.base import Task
from probes.aligned import align
from probes.data import ProbeDataset
from probes.labels.base import for_task, make_labels
from probes.reading import Plan, plan_of, read_rows
from probes.sources import Labelled, Texts, read_texts, spell
from probes.storage import FolderSink, MemorySink, Sink, as_objects, fingerprint, write_tables

__all__ = ["Progress", "dataset"]

Progress = Callable[[str, int, int], None]
"""Takes a stage, the rows that are read, and all rows."""


def dataset(
    model: Any,
    given: Any,
    labels: Any = None,
    *,
    sites: Any = "resid",
    positions: Any = None,
    groups: Any = None,
    types: Any = None,
    random_init: bool = False,
    storage: str | os.PathLike[str] = "memory",
    n: int | None = None,
    seed: int = 0,
    split: str = "all",
    prepend_bos: bool | None = None,
    random_seed: int = 0,
    progress: Progress | None = None,
    **options: Any,
) -> ProbeDataset:
    """Labels with the activations at their tokens, from one forward pass over the texts for all sites.

    `given` is the name of a label set (`probes.label_sets()`) or of a task that has one; a drawn `Task`; `PromptPairs`
    (their clean side); texts; or rows of token ids. The last four take `labels`: those of each text, one per token
    or one per position of `positions`; a mapping from targets to such lists; or a table with the columns text, pos
    (an index, a word, or characters) and label, or one column per target. Of a task they may also be names of its
    labels. Numbers are targets of a regression, everything else names classes, None is no label. `positions`: "all"
    (tokens of the text itself; of BOS and the like too where they are labelled), "last", indices, a function of a
    text's tokens, or a named position of pairs.

    `groups` are never split between fitting and testing, `types` are what the control task labels at random: one per
    text or per row, or a column of the table; by default the label set's, items for tasks, and else the word itself.

    `sites`: "resid" (the residual entering each layer, and the one behind the last), "attn_out", "mlp_out", "z", "q",
    "k", "v" (each head), "neurons", "all", names of sites, or a list. The embedding layer's is always read, as a
    baseline (`about["baseline_only"]` holds it where it was not asked for). Of two stacks the encoder is read.
    Half-precision activations become float32. `random_init` reads a randomly initialised twin as well (`random_seed`).

    `storage`: "memory", or a folder for memory-mapped files: memory then stays flat, the same call again finds them,
    and a call that was killed is gone on with. `n`, `split` ("select", "report", "all"), `seed` and `options` are a
    label set's. Raises `InputError` for labels that do not align, and for activations that are not finite.
    """
    if not isinstance(model, HookedTransformer):
        raise InputError(f"A dataset is read from a loaded model, not {model!r}. Load it first: interp.load(…).")
    if any(owner == id(model) for owner, _ in active_writes.get()):
        raise InputError("A dataset is read from the model as it is. Call it outside of model.hooks(…).")
    plan = plan_of(model, sites)
    drawn = {"n": n, "split": split, "seed": seed, "prepend_bos": prepend_bos, "options": options}
    found = _labelled(model, given, labels, positions, drawn)
    found = found.with_column("group", groups).with_column("type", types)
    found = replace(found, table=_table(model, found))
    in_memory = isinstance(storage, str) and storage == "memory"
    folder = None if in_memory else Path(storage)
    about = _about(model, plan, found, random_seed if random_init else None)
    own = _activations(model, plan, found, folder, "own", progress)
    twin = None
    if random_init:
        from interp.report.null import random_twin  # heavy: it knows all finders

        beside = None if folder is None else folder / "random_init"
        read = _activations(random_twin(model, random_seed), plan, found, beside, "random model", progress)
        twin = ProbeDataset(read, found.table, found.labels, about)
    if folder is not None:
        write_tables(folder, found.table, found.labels, about)
    return ProbeDataset(own, found.table, found.labels, about, twin)


def _labelled(model: HookedTransformer, given: Any, labels: Any, positions: Any, drawn: Mapping[str, Any]) -> Labelled:
    """What was given, as token rows with labels."""
    if isinstance(given, str):
        if labels is not None or positions is not None:
            raise InputError(
                f"The labels of {given!r} and their positions are its own. Leave labels= and positions= out, or draw "
                "the task (interp.tasks.load) and give both with it; a single text is given in a list."
            )
        return make_labels(model, given, **drawn)
    left = [name for name in ("n", *drawn["options"]) if drawn.get(name, True) is not None]
    if left or drawn["split"] != "all":
        raise InputError(f"{(left or ['split'])[0]}= is for label sets that are drawn by name. Leave it out here.")
    if isinstance(given, Task) and labels is None:
        return _of_task(model, given, positions)
    pairs = given.pairs if isinstance(given, Task) else given if isinstance(given, PromptPairs) else None
    if isinstance(given, Task) and pairs is None:
        raise InputError(f"The task {given.name} is made of token rows without places. Give task.tokens.tokens itself.")
    if isinstance(given, Task):
        labels = _task_labels(given, labels)
    texts = Texts(*_rows_of(model, pairs)) if pairs is not None else read_texts(model, given, drawn["prepend_bos"])
    found = align(model, texts, labels, positions=positions, pairs=pairs, bos=drawn["prepend_bos"])
    if pairs is not None:
        of = found.table["text"].tolist()
        items = [pairs.items[i] for i in of]
        templates = [pairs.templates[i] if pairs.templates else "" for i in of]
        table = found.table.assign(group=items, item=items, template=templates)
        found = replace(found, table=table)
    bos = {"prepend_bos": drawn["prepend_bos"], "group": "the item" if pairs is not None else "the word (type)"}
    return replace(found, about={**found.about, **bos})


def _of_task(model: HookedTransformer, task: Task, positions: Any) -> Labelled:
    known = for_task(task.name)
    if known is None or known.from_task is None or positions is not None:
        what = "and labels= with positions=" if positions is not None else "of its own"
        raise InputError(
            f"The task {task.name} has no label set {what}. Give labels= (names of its labels: "
            f"{', '.join(task.labels)}; or a mapping) and positions= (names: "
            f"{', '.join(task.pairs.positions) if task.pairs is not None else 'none'})."
        )
    return known.from_task(model, task)


def _task_labels(task: Task, labels: Any) -> Any:
    """Names of a task's labels as a mapping; anything else as it is."""
    names = [labels] if isinstance(labels, str) else labels
    if not isinstance(names, list | tuple) or not all(isinstance(one, str) for one in names):
        return labels
    missing = [name for name in names if name not in task.labels]
    if missing:
        raise InputError(f"The task {task.name} has no label {missing[0]!r}. It has {', '.join(task.labels)}.")
    return {name: list(task.labels[name]) for name in names}


def _rows_of(model: HookedTransformer, pairs: PromptPairs) -> tuple[list[NDArray], list[tuple[int, int]]]:
    """The clean prompts, and where each begins and ends without the special tokens around it."""
    special = sorted(model.tokenizer.special_ids) if model.tokenizer is not None else []
    rows = [np.array(row, dtype=np.int32) for row in pairs.clean]
    plain = [np.flatnonzero(~np.isin(row, special)) for row in rows]
    own = [(int(at[0]), int(at[-1]) + 1) if len(at) else (0, len(row)) for at, row in zip(plain, rows, strict=True)]
    return rows, own


def _table(model: HookedTransformer, found: Labelled) -> pd.DataFrame:
    """The table with each row's token as text, its five columns first."""
    given = found.table
    ids = np.array([found.tokens[i][j] for i, j in zip(given["text"], given["pos"], strict=True)])
    names, which = np.unique(ids, return_inverse=True)
    token = pd.Series(np.array(spell(model, names), dtype=object)[which], dtype=object)
    first = ("text", "pos", "token", "group", "type")
    rest = [name for name in given.columns if name not in first]
    return as_objects(given.assign(token=token).reindex(columns=[*first, *rest]))


def _about(model: HookedTransformer, plan: Plan, found: Labelled, random_seed: int | None) -> dict[str, Any]:
    from interp import __version__

    return {
        **found.about,
        "model": model.cfg.model_name,
        "interp": __version__,
        "stack": plan.stack or "the only one",
        "sites": plan.names,
        "embedding": str(plan.embedding),
        "baseline_only": [] if plan.asked else [str(plan.embedding)],
        "n_texts": len(set(found.table["text"])),
        "n_rows": len(found),
        "n_groups": len(set(found.table["group"])),
        "random_init": random_seed is not None,
        "random_seed": random_seed,
    }


def _activations(
    model: HookedTransformer, plan: Plan, found: Labelled, folder: Path | None, stage: str, progress: Progress | None
) -> dict[str, NDArray]:
    """The activations of one model by site, in forward order."""
    text, pos = (found.table[name].to_numpy(np.int64) for name in ("text", "pos"))
    sink: Sink = MemorySink(len(found)) if folder is None else _folder_sink(model, plan, found, folder)

    def write(site: str, rows: slice, x: NDArray) -> None:
        finite = np.isfinite(x).reshape(len(x), -1).all(axis=1)
        if not finite.all():
            row = rows.start + int(np.flatnonzero(~finite)[0])
            raise InputError(
                f"The activations at {site} are not finite in row {row} (text {text[row]}, position {pos[row]}, token "
                f"{found.table['token'][row]!r}) of the {stage} model. Load it in float32, or leave the text out."
            )
        sink.write(site, rows, x)

    def done(rows: int) -> None:
        sink.done(rows)
        if progress is not None:
            progress(stage, rows, len(found))

    try:
        if sink.start < len(found):
            read_rows(model, plan, found.tokens, text, pos, write, start=sink.start, done=done)
    except InputError:
        sink.discard()
        raise
    except BaseException:
        sink.stop()
        raise
    read = sink.close()
    return {name: read[name] for name in plan.names}


def _folder_sink(model: HookedTransformer, plan: Plan, found: Labelled, folder: Path) -> FolderSink:
    text, pos = (found.table[name].to_numpy(np.int64) for name in ("text", "pos"))
    tokens = [np.asarray(found.tokens[i], dtype=np.int32) for i in np.unique(text)]
    lengths = np.array([len(row) for row in tokens])
    key = fingerprint(
        model=model_hash(model), sites=plan.names, rows=[text, pos], tokens=[np.concatenate(tokens), lengths]
    )
    return FolderSink(folder, key, len(found))
