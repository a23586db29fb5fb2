"""What a machine can hold of the style and of the promise that `import interp` is light."""

from __future__ import annotations

import ast
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("interp", "probes", "app")
HEAVY = ("transformers", "transformer_lens", "streamlit", "plotly")
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
UNSAFE_METHODS = {"torch.load", "torch.save", "read_pickle", "to_pickle"}
UNSAFE_FLAGS = {"allow_pickle", "trust_remote_code"}


def modules(*packages: str) -> list[Path]:
    return sorted(path for package in packages for path in (ROOT / package).rglob("*.py"))


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported_roots(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.lineno, node.module.split(".")[0]


def unsafe(tree: ast.AST) -> list[str]:
    """Each way to run data as code: pickle and its kin, eval, exec, remote code."""
    found = [f"line {line}: imports {name}" for line, name in imported_roots(tree) if name in UNSAFE_MODULES]
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in {"eval", "exec"}:
            found.append(f"line {node.lineno}: {node.id}")
        elif isinstance(node, ast.Attribute):
            name = ast.unparse(node)
            if name in UNSAFE_METHODS or node.attr in UNSAFE_METHODS or name in {"builtins.eval", "builtins.exec"}:
                found.append(f"line {node.lineno}: {name}")
        elif isinstance(node, ast.keyword) and node.arg in UNSAFE_FLAGS and ast.unparse(node.value) != "False":
            found.append(f"line {node.value.lineno}: {node.arg}={ast.unparse(node.value)}")
    return found


def long_classes(tree: ast.AST, limit: int = 300) -> list[str]:
    sizes = {n.name: (n.end_lineno or n.lineno) - n.lineno + 1 for n in ast.walk(tree) if isinstance(n, ast.ClassDef)}
    return [f"{name} has {lines} lines" for name, lines in sizes.items() if lines > limit]


def public_names(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names.update(leaf.id for t in targets for leaf in ast.walk(t) if isinstance(leaf, ast.Name))
    return {name for name in names if not name.startswith("_") or name == "__all__"}


def report(found: dict[Path, list[str]]) -> str:
    return "\n".join(f"{path.relative_to(ROOT)}: {line}" for path, lines in found.items() for line in lines)


def test_importing_interp_pulls_in_no_heavy_library() -> None:
    code = "import interp, json, sys; print(json.dumps([interp.__file__, sorted(sys.modules)]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    file, loaded = json.loads(done.stdout)
    assert file and Path(file).parent == ROOT / "interp"
    assert {name.split(".")[0] for name in loaded}.isdisjoint(HEAVY)


@pytest.mark.slow
def test_importing_interp_takes_at_most_half_as_long_again_as_importing_torch() -> None:
    def seconds(module: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", f"import {module}"], cwd=ROOT, check=True)
        return time.perf_counter() - start

    seconds("torch"), seconds("interp")  # fill the disk cache
    pairs = [(seconds("torch"), seconds("interp")) for _ in range(7)]  # interleaved: load on the machine hits both
    torch_time, interp_time = (statistics.median(times) for times in zip(*pairs, strict=True))
    assert interp_time <= 1.5 * torch_time, f"interp {interp_time:.2f} s, torch {torch_time:.2f} s"


def test_no_module_is_named_utils_or_helpers() -> None:
    assert [p for p in modules(*PACKAGES) if {"utils", "helpers"} & {p.stem, *p.relative_to(ROOT).parts}] == []


def test_no_class_is_longer_than_300_lines() -> None:
    found = {path: long_classes(parse(path)) for path in modules(*PACKAGES)}
    assert not any(found.values()), report(found)


def test_nothing_pickles_or_runs_data_as_code() -> None:
    found = {path: unsafe(parse(path)) for path in modules(*PACKAGES)}
    assert not any(found.values()), report(found)


def test_streamlit_is_imported_only_inside_app() -> None:
    found = {
        p: [f"line {n}" for n, r in imported_roots(parse(p)) if r == "streamlit"] for p in modules("interp", "probes")
    }
    assert not any(found.values()), report(found)


def test_every_module_with_public_names_lists_them() -> None:
    # main.py and pages/ are scripts that streamlit runs: nobody imports a name from them.
    scripts = {ROOT / "app" / "main.py", *(ROOT / "app" / "pages").rglob("*.py")}
    names = {path: public_names(parse(path)) for path in modules(*PACKAGES) if path not in scripts}
    found = {path: sorted(public) for path, public in names.items() if public and "__all__" not in public}
    assert not found, "without __all__:\n" + report(found)


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "def f():\n    import dill",
        "eval('1')",
        "run = exec",
        "import builtins\nbuiltins.exec('1')",
        "torch.load(path)",
        "frame.to_pickle(path)",
        "np.load(path, allow_pickle=True)",
        "load(name, trust_remote_code=flag)",
    ],
)
def test_the_search_for_unsafe_code_finds_it(source: str) -> None:
    assert unsafe(ast.parse(source))


@pytest.mark.parametrize("source", ["model.eval()", "np.load(path, allow_pickle=False)", "'eval'", "self.exec = 1"])
def test_the_search_for_unsafe_code_leaves_harmless_code_alone(source: str) -> None:
    assert unsafe(ast.parse(source)) == []


def test_the_searches_for_long_classes_and_public_names_find_them() -> None:
    assert long_classes(ast.parse("class A:\n" + "    x = 1\n" * 300)) == ["A has 301 lines"]
    assert long_classes(ast.parse("class A:\n" + "    x = 1\n" * 299)) == []
    assert public_names(ast.parse("import os\n_a = 1\nb, _c = 1, 2\ndef d(): pass\nclass _E: pass")) == {"b", "d"}
