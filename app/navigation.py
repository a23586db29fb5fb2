"""The pages there are. A page is one file in `pages/` and one line here."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import streamlit as st

__all__ = ["open_page", "pages"]

_FOLDER = Path(__file__).parent / "pages"


def pages() -> dict[str, st.Page]:
    """All pages by name, in the order of the navigation; an address without a page shows the atlas."""
    return {
        "explore": st.Page(_FOLDER / "explore.py", title="Explore", icon=":material/explore:", url_path="explore"),
        "atlas": st.Page(_FOLDER / "atlas.py", title="Atlas", icon=":material/grid_on:", default=True),
        "head": st.Page(_FOLDER / "head.py", title="Head", icon=":material/visibility:", url_path="head"),
        "patching": st.Page(
            _FOLDER / "patching.py", title="Patching", icon=":material/swap_vert:", url_path="patching"
        ),
        "lens": st.Page(_FOLDER / "lens.py", title="Lens and attribution", icon=":material/search:", url_path="lens"),
        "flow": st.Page(_FOLDER / "flow.py", title="Flow", icon=":material/account_tree:", url_path="flow"),
        "probes": st.Page(_FOLDER / "probes.py", title="Probes", icon=":material/sensors:", url_path="probes"),
        "training": st.Page(
            _FOLDER / "training.py", title="Training", icon=":material/trending_up:", url_path="training"
        ),
        "runs": st.Page(_FOLDER / "runs.py", title="Runs", icon=":material/inventory_2:", url_path="runs"),
    }


def open_page(name: str) -> NoReturn:
    """Leave this page for another; what it shows follows from the shared settings."""
    st.switch_page(pages()[name])
    raise AssertionError("switch_page does not return")
