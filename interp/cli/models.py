"""`interp models`: what can be loaded."""

from __future__ import annotations

from typing import Any

from interp.cli.output import AsJson, print_json, print_table

__all__ = ["models"]


def models(as_json: AsJson = False) -> None:
    """Show which models can be loaded: by name, and which families of checkpoints."""
    from interp.families.load import models as named
    from interp.families.load import supported

    listed = [vars(model) for model in named()]
    families: list[dict[str, Any]] = [
        {
            "name": family.name,
            "model_types": list(family.hf_model_types),
            "gguf": list(family.gguf.architectures) if family.gguf else [],
            "refuses": list(family.refuses),
        }
        for family in supported()
    ]
    if as_json:
        print_json({"models": listed, "families": families})
        return
    rows = [[one["name"], one["about"], "installed" if one["installed"] else one["install"]] for one in listed]
    print_table(["model", "what it is", "here?"], rows, title="By name")
    names = ("name", "model_types", "gguf", "refuses")
    rows = [[one[name] if name == "name" else ", ".join(one[name]) or "–" for name in names] for one in families]
    title = "Families: a .gguf file, a local folder in the hub's layout, or a hub id"
    print_table(["family", "model_type", "GGUF architecture", "refuses"], rows, title=title)
