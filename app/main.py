"""The app's entry: navigation only. Streamlit runs this file by its path (`interp app`)."""

import sys
from pathlib import Path

import streamlit as st

# The folder that streamlit was started in comes before installed packages: an app.py there would be taken for ours.
if sys.path[0] != (_root := str(Path(__file__).resolve().parents[1])):
    sys.path.insert(0, _root)

from app import navigation, state
from app.components.text import notice
from interp.errors import InterpError

# The icon is drawn here: one by name, also of a page, would be fetched from a font server for the browser's tab.
_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 3 3"><path fill="#c6dbef" d="M0 0h3v3H0z"/>'
    '<path fill="#0b3c78" d="M1 1h1v1H1z"/><path fill="#3182bd" d="M2 0h1v1H2zM0 2h1v1H0z"/></svg>'
)
st.set_page_config(page_title="interp", page_icon=_ICON, layout="wide")
# Streamlit leaves 6 rem above a page; the navigation needs less.
st.html("<style>.stMainBlockContainer { padding-top: 4.2rem; padding-bottom: 3rem; }</style>")
state.seed()
page = st.navigation(list(navigation.pages().values()), position="top")
for complaint in state.complaints():
    notice(complaint, "warning")
try:
    page.run()
except InterpError as error:
    notice(str(error), "error")
