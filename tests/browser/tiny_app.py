"""The app with one tiny model, whose heads are made up and which is patched slowly. Streamlit runs this file."""

import runpy
import sys
from pathlib import Path

_root = Path(__file__).resolve().parents[2]
for folder in (_root, Path(__file__).parent):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from serving import slow_find_heads, slow_patching, tiny_model, tiny_task  # noqa: E402

import interp  # noqa: E402
from app import models, patching  # noqa: E402
from interp import tasks  # noqa: E402

interp.load, interp.find_heads = tiny_model, slow_find_heads
tasks.load = tiny_task
slow_patching()
patching.MAX_BYTES = 30_000  # several waves
models.installed = lambda: ["tiny"]
models.default_model = lambda: "tiny"
runpy.run_path(str(_root / "app" / "main.py"), run_name="__main__")
