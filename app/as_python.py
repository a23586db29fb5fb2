"""A view as Python: lines that run as they are, outside the app, and give the numbers that the view shows.

Everything that comes from a reader stands there as a literal, so no text becomes code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app import models, state, store

__all__ = ["call", "of_prompt", "of_run", "of_runs", "of_text"]


def of_prompt(model: str, prompt: models.ReadPrompt, *lines: str, chat: bool = False) -> str:
    """Loads the model and reads the prompt of the view as `tokens`, with `chat` in its chat template; then `lines`."""
    bos, cut = f", prepend_bos={prompt.has_bos}", ""
    text: Any = state.get("prompt")
    if chat:
        cut = f"[:, :{len(prompt.ids)}]" if prompt.n_left_out else ""
        return of_text(model, f"tokens = model.chat({text!r}){cut}", *lines)
    if prompt.n_left_out:
        bos, cut = f"{bos}, truncate=True", f"[:, :{len(prompt.ids)}]"
    return of_text(model, f"tokens = model.to_tokens({text!r}{bos}){cut}", *lines)


def of_text(model: str, *lines: str) -> str:
    """Loads the model; then `lines`."""
    start = [
        "import torch",
        "",
        "import interp",
        "",
        "torch.set_grad_enabled(False)",
        f"model = interp.load({model!r})",
    ]
    return "\n".join([*start, *lines]) + "\n"


def of_run(run_id: str, *lines: str) -> str:
    """Opens a stored run as `found`; then `lines`."""
    return of_runs({"found": run_id}, *lines)


def of_runs(ids: Mapping[str, str], *lines: str) -> str:
    """Opens stored runs under these names; then `lines`."""
    path = str(store.run_store().path.absolute())
    opened = [f"{name} = runs.open({run_id!r}).results()" for name, run_id in ids.items()]
    return "\n".join(["import interp", "", f"runs = interp.RunStore({path!r})", *opened, *lines]) + "\n"


def call(name: str, *given: str, result: str = "found", **options: Any) -> str:
    """A line `found = interp.name(given, option=value)`. `given` is code, options are values; those that are None are
    left out."""
    parts = [*given, *(f"{key}={_literal(value)}" for key, value in options.items() if value is not None)]
    return f"{result} = interp.{name}({', '.join(parts)})"


def _literal(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(_literal, value))}]"
    if not isinstance(value, bool | int | float | str):
        raise TypeError(f"{type(value).__name__} is no literal")
    return repr(value)
