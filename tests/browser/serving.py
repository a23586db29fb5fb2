"""A real server of the app on 127.0.0.1, with a tiny store and a tiny model, for the browser tests and screenshots."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import torch
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

from interp.causal.plan import Plan
from interp.cli.browser import STORE_VARIABLE, app_command
from interp.model.config import ModelConfig
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.results import Effects, HeadScores
from interp.runs.store import RunStore
from interp.tasks import Task
from interp.text import Tokenizer

__all__ = [
    "HOSTILE",
    "ROOT",
    "serve",
    "slow_find_heads",
    "slow_patching",
    "task_scores",
    "tiny_model",
    "tiny_scores",
    "tiny_store",
    "tiny_task",
]

ROOT = Path(__file__).resolve().parents[2]
N_LAYERS, N_HEADS = 3, 4
# Each is one token of the tiny model.
HOSTILE = [
    "<img/src=x/onerror=alert(1)>",
    "![p](http://192.0.2.1/x.png)",
    "</script><script>alert(2)</script>",
    "\u202eevil",
]
_WORDS = ["<s>", "?", "the", "cat", "sat", "on", "a", "mat", *HOSTILE]


def tiny_model(name: str = "tiny", **ignored: object) -> HookedTransformer:
    """A random model of 3 layers of 4 heads that reads the words above."""
    backend = Backend(models.WordLevel({word: i for i, word in enumerate(_WORDS)}, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = Tokenizer(backend, add_bos=False, bos_id=0, eos_id=None, pad_id=None, unk_id=1)
    config = ModelConfig.decoder_only(
        n_layers=N_LAYERS, d_model=32, n_heads=N_HEADS, d_vocab=len(_WORDS), n_ctx=1024, d_mlp=64, model_name=name
    )
    model = HookedTransformer(config, tokenizer, seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)  # patterns that are neither flat nor sharp
    return model


def tiny_scores(model: str = "tiny") -> HeadScores:
    """Made-up scores of that model's heads; only two heads were ablated."""
    rows = []
    for kind, best in (("previous_token", (1, 2)), ("induction", (2, 3))):
        for layer in range(N_LAYERS):
            for head in range(N_HEADS):
                score = 0.9 if (layer, head) == best else 0.02 * (layer + head)
                row = {"kind": kind, "stack": "", "sublayer": "attn", "layer": layer, "head": head, "score": score}
                row |= {"score_low": score - 0.01, "score_high": score + 0.01, "writing": 0.5, "verdict": ""}
                if (layer, head) == best:
                    row |= {"effect": 1.5, "effect_low": 1.25, "effect_high": 1.75, "control": -0.1, "p": 0.001}
                    row |= {"p_corrected": 0.002, "verdict": kind}
                rows.append(row)
    sets = pd.DataFrame(
        [
            {"kind": kind, "heads": heads, "clean": 1.0, "ablated": 2.5, "effect": 1.5, "effect_low": 1.25,
             "effect_high": 1.75, "random_mean": 0.1, "random_max": 0.2, "p": 0.001}
            for kind, heads in (("previous_token", "1.2"), ("induction", "2.3"))
        ]
    )  # fmt: skip
    about = {
        "model": model,
        "definitions": {"previous_token": "attends to the token before", "induction": "attends behind earlier copies"},
        "writing": {"induction": "copying"},
        "n": 8,
    }
    return HeadScores(pd.DataFrame(rows), sets, about)


def task_scores(model: str = "tiny") -> HeadScores:
    """Made-up results of kinds of tasks: one kind with every verdict, one whose task the model does not do, and one
    with a hostile name; hostile reasons, tables and baselines."""
    verdicts = {
        (2, 1): ("name_mover", ""),
        (2, 0): ("attends like name_mover", "writing 0 not ≥ 0"),
        (1, 0): ("matters for ioi", "score 0.02 < 0.3"),
        (1, 3): ("", f"score 0.08 < 0.3; {HOSTILE[0]} {HOSTILE[1]}"),
        (0, 2): ("", "effect 0.010 not ≥ 0.05"),
    }
    rows = []
    for kind in ("name_mover", "fact_recall", HOSTILE[0]):
        for layer in range(N_LAYERS):
            for head in range(N_HEADS):
                at = (layer, head)
                score = 0.8 - 0.1 * (at == (2, 0)) if at in ((2, 1), (2, 0)) else 0.02 * (layer + head)
                row = {"kind": kind, "stack": "", "sublayer": "attn", "layer": layer, "head": head, "score": score}
                row |= {"score_low": score - 0.01, "score_high": score + 0.01, "writing": 3.0, "baseline": 0.25}
                row |= {"role": "", "verdict": "", "reason": "score 0.02 < 0.3; not tested"}
                if at in verdicts:
                    row |= {"noise": 0.4, "denoise": 0.3, "mean": 0.2, "resample": 0.1, "effect": 0.4, "p": 0.001}
                    row |= {"effect_low": 0.35, "effect_high": 0.45, "control": 0.01, "p_corrected": 0.004}
                    row |= {"denoise_effect": 0.3, "denoise_effect_low": 0.25, "denoise_effect_high": 0.35}
                    row |= {"denoise_control": 0.02, "denoise_p_corrected": 0.008, "attention_to_S": 0.125}
                    verdict, reason = verdicts[at] if kind == "name_mover" else ("", "cannot tell: not done")
                    row |= {"verdict": verdict, "reason": reason}
                rows.append(row)
    layers = pd.DataFrame({"layer": [0, 1, 2], "noise": [0.1, 0.7, 0.2], "noise_low": 0.0, "noise_high": 0.9})
    task = {"accuracy": 0.96, "metric": "logit_diff", "corruption": "swap", "is done": True}
    task |= {"clean − corrupt (95%)": [3.0, 2.5, 3.5], "n_items": {"select": 20, "report": 20}}
    task |= {"templates": {"select": ["a"], "report": [f"When {{A}} {HOSTILE[1]}"]}}
    about = {
        "model": model,
        "definitions": {"name_mover": "attention to IO", "fact_recall": "attention to the subject"},
        "writing": {"name_mover": "direct logit"},
        "tests": {"name_mover": {"decides": ["noise", "denoise"], "supports": ["mean", "resample"], "sign": 1}},
        "tasks": {"ioi": task, "fact_recall": task | {"is done": False, "accuracy": 0.1}},
        "baselines": {"name_mover": {"nearest": 0.25, HOSTILE[2]: 0.125}},
        "problems": {"fact_recall": f"always on one side {HOSTILE[0]}"},
        "seed": 0,
    }
    tables = {"name_mover: MLPs by layer": layers, f"fact_recall: {HOSTILE[0]}": pd.DataFrame({HOSTILE[1]: ["x"]})}
    return HeadScores(pd.DataFrame(rows), pd.DataFrame(), about, tables)


def tiny_task(name: str, model: HookedTransformer, corruption: str, *, split: str, n: int, seed: int) -> Task:
    """Three prompts of the tiny model's words that name the places of indirect objects, or of
    mentions."""
    texts = ["the cat sat on the mat", f"a cat {HOSTILE[0]} on the mat", "the mat sat on a cat"]
    places = {"IO": 1, "S1": 2, "S2": 4, "END": 5}
    if name == "coreference":
        places = {"antecedent": 1, "distractor": 3, "pronoun": 4, "END": 5}
    ids = [model.tokenizer.encode(text) for text in texts]
    pairs = PromptPairs.from_tokens(
        ids,
        [row[::-1] for row in ids],
        [3] * len(ids),
        positions={name: [place] * len(ids) for name, place in places.items()},
        items=[f"item {i}" for i in range(len(ids))],
    )
    return Task(name, pairs, None, about={"bos": False, "seed": seed, "split": split})


def slow_find_heads(
    model: HookedTransformer, kinds: list[str], *, n: int, keep: Path, progress: Callable[[str, int, int], None]
) -> HeadScores:
    """What `find_heads` would return, after two seconds of reported progress."""
    for done in range(20):
        progress("ablating", done, 20)
        time.sleep(0.1)
    return tiny_scores(model.cfg.model_name)


def slow_patching() -> None:
    """Let patching pause after each wave, so that there is something to watch and to cancel. Once is enough:
    Streamlit runs its script again and again."""
    if Plan.run.__name__ == "slow_run":
        return
    real = Plan.run

    def slow_run(self: Plan, progress: Callable[[int, int], None] | None = None) -> Effects:
        def report(done: int, total: int) -> None:
            time.sleep(0.6)
            if progress is not None:
                progress(done, total)

        return real(self, report)

    Plan.run = slow_run


def tiny_store(path: Path) -> tuple[str, str]:
    """A store of two runs, the newer one with a hostile title, and one damaged run; the ids of the two."""
    store = RunStore(path)
    older = store.save(tiny_scores(), spec={"n": 8}, title="older")
    newer = store.save(tiny_scores(), spec={"n": 8}, title=f"{HOSTILE[0]} {HOSTILE[1]}")
    broken = store.save(tiny_scores(), spec={"n": 8})
    (path / broken.id / "manifest.json").write_text("{")
    return older.id, newer.id


@contextmanager
def serve(
    main: Path, store: Path, *, log: Path, cwd: Path = ROOT, env: Mapping[str, str] | None = None
) -> Iterator[str]:
    """The address of a server of `main`, with the flags of `interp app`. It is ended, and waited for, at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = {**os.environ, STORE_VARIABLE: str(store), "HF_HUB_OFFLINE": "1", **(env or {})}
    with log.open("w") as output:
        process = subprocess.Popen(app_command(main, port), cwd=cwd, env=variables, stdout=output, stderr=output)
        try:
            _wait(process, port, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            try:
                process.wait(2)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + 40
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}:\n{log.read_text()}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"the server did not answer:\n{log.read_text()}")
