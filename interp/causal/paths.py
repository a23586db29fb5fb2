"""Path patching (Wang 2022, §3.1; Goldowsky-Dill 2023): what a head does to another one directly, and by that alone.

First the senders are patched while every other head keeps what it wrote, and what then reaches the receivers is
recorded; then the receivers alone get that, and everything behind them is computed anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from interp.causal.analysis import Analysis
from interp.causal.bundles import Bundle, Op
from interp.causal.plan import Plan, Progress
from interp.causal.questions import pose
from interp.causal.reach import felt, in_memory, is_causal
from interp.causal.sweep import Sweep
from interp.causal.targets import Part, Target, check_prefix, is_address, targets_of
from interp.causal.texts import Text, encoders_differ, first_difference
from interp.causal.wave import Outputs, Wave
from interp.errors import InputError
from interp.model.block import CrossBlock, block_kind
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.sites import Head, Site

__all__ = ["path_patch"]

Rule = Literal["recompute", "freeze"]


@Analysis
def path_patch(
    model: HookedTransformer,
    pairs: PromptPairs,
    senders: Any = "heads",
    receivers: Any = "logits",
    *,
    mlps: Rule = "recompute",
    norms: Rule = "recompute",
    direction: Literal["denoise", "noise"] = "noise",
    metric: Any = "logit_diff",
    max_bytes: Any = None,
    progress: Progress = None,
) -> Plan:
    """The effect of each sender through its direct path to the receivers.

    `senders`: heads, tensors of a layer, sets of them, or "heads" (each by itself). `receivers`: "logits", or inputs
    of later heads such as "23.4.q", "20.0.k" (k and v count key/value heads), or tensors of a later layer such as
    "mlp_pre.24"; several are patched together. Between the two, other heads keep the base run's output; `mlps` and
    `norms` (their scales, the final one's too) are recomputed on the way or frozen. Behind the receivers everything
    is recomputed. `direction` "noise" copies the corrupt senders into the clean run, "denoise" the reverse.

    With two stacks paths run inside the decoder ("heads" are then its self- and cross-attention's, the encoder's output
    is the base run's), inside the encoder to receivers there, or from the encoder through its output to keys and values
    of cross-attention ("decoder.cross_attn.1.0.k"). No other path leaves the encoder directly: those are refused.

    Returns `Effects` `[prompt, sender]`; a sender that no path leads from has effect 0. Exact. Cost: 2 passes, and
    for each sender the layers from it on, once to the receivers and once from them.
    """
    for name, rule in (("mlps", mlps), ("norms", norms)):
        if rule not in ("recompute", "freeze"):
            raise InputError(f'{name} is {rule!r}. Choose "recompute" or "freeze".')
    if direction not in ("denoise", "noise"):
        raise InputError(f'direction is {direction!r}. Choose "denoise" (clean into corrupt) or "noise".')
    question = pose(model, pairs, metric)
    base, source = ("corrupt", "clean") if direction == "denoise" else ("clean", "corrupt")
    ends = _receivers(model, receivers)
    wanted, stack = _senders(model, senders, ends)
    _check(wanted, ends, mlps)
    builder = _Paths(model, stack, question.texts(base), question.texts(source), ends, mlps, norms)
    bundles = [
        bundle
        for text in range(len(builder.base))
        for number, target in enumerate(wanted)
        for bundle in builder.bundles(text, number, target)
    ]
    sweep = Sweep(
        model,
        question.metric,
        builder.base,
        builder.source,
        bundles,
        np.zeros((len(builder.base), len(wanted)), dtype=bool),
        reference="source" if direction == "denoise" else "base",
        max_bytes=max_bytes,
        freeze_final=stack if norms == "freeze" and (ends is None or builder.crosses) else None,
        **({} if ends is None else {"run_wave": builder.run, "also_resid": builder.joined}),
    )
    about = {
        "method": "path patching",
        "site": "paths from senders",
        "receivers": "logits" if ends is None else ", ".join(part.name for part in ends),
        "mlps": mlps,
        "norms": norms,
        "direction": direction,
        "base": base,
        "source": source,
        "metric": question.metric.name,
        "unit": question.metric.unit,
        "exact": True,
        "model": model.cfg.model_name,
    }
    axes = {"sender": [target.name for target in wanted]}
    return Plan(sweep, axes, question.items, pairs.templates, about, progress)


@dataclass
class _Paths:
    """Makes the edits of both halves: on the way to the receivers, and from them on."""

    model: HookedTransformer
    stack: str  # of the senders
    base: list[Text]
    source: list[Text]
    ends: list[Part] | None
    mlps: Rule
    norms: Rule

    @property
    def crosses(self) -> bool:
        """Whether the paths lead from the encoder to cross-attention's keys and values."""
        return self.ends is not None and any(in_memory(part.site) for part in self.ends)

    def _reaches(self, sender: Target, end: Part) -> bool:
        """Whether a path may lead from one to the other: to a tensor that is made later."""
        made = self.model.sites.names
        if self.crosses:
            return True
        return any(made.index(str(site)) < made.index(str(end.site)) for site in sender.by_site())

    @property
    def last(self) -> int:
        """The last layer that anything is on the way to."""
        if self.ends is None or self.crosses:
            return self.model.cfg.stacks[self.stack].n_layers - 1
        return max(_layer(part.site) for part in self.ends)

    def bundles(self, text: int, number: int, sender: Target) -> list[Bundle]:
        """The first half of one cell; none where no path leads to a receiver or both runs read the same."""
        first = min(_layer(site) for site in sender.by_site())
        start, n_text = self._start(text), len(self._tokens(self.base[text]))
        if start == n_text or not (start == 0 or any(read >= start for read in self.base[text].reads)):
            return []
        if self.ends is not None and not any(self._reaches(sender, end) for end in self.ends):
            return []
        positions = range(start, n_text)
        ops = []
        for layer in range(first, self.last + 1):
            ops += self._frozen(text, layer, positions, sender)
        sent = [
            Op(site, self._felt(text, site, positions), _units(units), "source")
            for site, units in sender.by_site().items()
            if _layer(site) <= self.last
        ]
        ops = [op for op in (*ops, *sent) if op.pos]
        # Frozen tensors come first: where a sender is part of one, its own value is put over it.
        return [Bundle(text, torch.tensor([number]), tuple(ops), start)] if any(op in sent for op in ops) else []

    def _tokens(self, text: Text) -> tuple[int, ...]:
        return text.in_stack(bool(text.encoder) and self.stack == "encoder")

    def _start(self, text: int) -> int:
        """The first position whose tensors differ between the runs, or can feel one that does."""
        base, source = self.base[text], self.source[text]
        if base.encoder and self.stack == "encoder":
            return 0 if encoders_differ(base, source) else len(base.encoder)
        start = first_difference(base, source)
        return start if start == len(base.tokens) or is_causal(self.model, self.stack) else 0

    def _felt(self, text: int, site: Site, positions: range) -> tuple[int, ...]:
        return felt(self.model, self.base[text], site, positions)

    def _frozen(self, text: int, layer: int, positions: range, sender: Target) -> list[Op]:
        """What keeps the base run's value in one layer. In the senders' first layer the heads have it anyway."""
        config = self.model.cfg.stacks[self.stack].blocks[layer]
        names = [("hook_z", "attn"), *([("hook_z", "cross_attn")] if config.cross_attn is not None else [])]
        sends_in_mlp = any(site.part == "mlp" and _layer(site) == layer for site in sender.by_site())
        if self.mlps == "freeze" and config.mlp is not None and not sends_in_mlp:
            names.append(("hook_mlp_out", ""))
        if self.norms == "freeze" and config.norm.kind != "none":
            parts = block_kind(config).norm_parts(config)
            names += [("hook_scale", norm) for norm in parts]
        sites = [Site(name, part, layer, self.stack) for name, part in names]
        mine = {site for site, units in sender.by_site().items() if units is None}
        return [Op(site, self._felt(text, site, positions), None, "base") for site in sites if site not in mine]

    @property
    def joined(self) -> frozenset[tuple[str, int]]:
        """Where cells may join in the second half."""
        return frozenset((part.site.stack, _layer(part.site)) for part in self.ends or ())

    def run(self, wave: Wave, bundles: Sequence[Bundle]) -> Outputs:
        """Both halves."""
        assert self.ends is not None
        if self.crosses:
            watched = self._across(wave.encoded(bundles))
        else:
            names = frozenset(str(part.site) for part in self.ends)
            _, watched = replace(wave, watch=names).run(bundles, stop=self.last + 1)
        onward, bank = self._onward(wave, bundles, watched)
        return replace(wave, banks={**wave.banks, "recorded": bank}, freeze_final=None).run(onward)[0]

    def _across(self, encoded: Outputs) -> dict[tuple[int, str], Tensor]:
        """The keys and values that cross-attention makes of what each bundle's encoders put out."""
        made = {}
        for site in {part.site for part in self.ends or ()}:
            attn = cast(CrossBlock, self.model.main.block(_layer(site))).cross_attn
            linear = attn.k if site.name == "hook_k" else attn.v
            for number, memory in enumerate(encoded):
                split = rearrange(linear(memory), "cell pos (head d) -> cell pos head d", d=attn.config.d_head)
                made[number, str(site)] = split
        return made

    def _onward(
        self, wave: Wave, bundles: Sequence[Bundle], watched: Mapping[tuple[int, str], Tensor]
    ) -> tuple[list[Bundle], dict[str, Tensor]]:
        """Edits that give the receivers what was recorded for them, and the bank that it is taken from."""
        recorded: dict[str, list[Tensor]] = {}
        made = []
        for number, bundle in enumerate(bundles):
            text, ops = wave.base.texts[bundle.text], []
            for site, units in Target(tuple(self.ends or ()), "").by_site().items():
                in_encoder = bool(text.encoder) and (site.stack == "encoder" or in_memory(site))
                positions = felt(self.model, text, site, range(bundle.start, len(text.in_stack(in_encoder))))
                if not positions or (number, str(site)) not in watched:  # a receiver in front of the sender's layer
                    continue
                some = recorded.setdefault(str(site), [])
                begin = sum(map(len, some))
                some.append(watched[number, str(site)][0])  # of all positions from `start` on, or of the reads
                assert len(some[-1]) == len(positions)
                ops.append(Op(site, positions, _units(units), "recorded", torch.arange(begin, begin + len(positions))))
            made.append(Bundle(bundle.text, bundle.cells, tuple(ops), bundle.start))
        return made, {name: torch.cat(some) for name, some in recorded.items()}


# Between senders and receivers what the heads write is frozen, so nothing passes into or out of these.
_IN_HEADS = ("hook_q", "hook_k", "hook_v", "hook_rot_q", "hook_rot_k", "hook_attn_scores", "hook_pattern")
_OF_HEADS = ("hook_attn_scores", "hook_pattern", "hook_z", "hook_result", "hook_attn_out")


def _check(senders: Sequence[Target], ends: Sequence[Part] | None, mlps: Rule) -> None:
    """Refuse senders and receivers that no path could leave or reach."""
    for part in (part for target in senders for part in target.parts):
        if part.site.name in _IN_HEADS:
            raise InputError(
                f"{part.name} cannot send: it is read inside its heads only. Send from heads, or use patch."
            )
    for part in ends or ():
        if mlps == "freeze" and part.site.name == "hook_mlp_out":
            raise InputError(f'{part.name} cannot receive with mlps="freeze". Let its input receive, e.g. "mlp_pre".')


def _senders(model: HookedTransformer, asked: Any, ends: Sequence[Part] | None) -> tuple[list[Target], str]:
    """The senders and the stack that they are in; raises `InputError` where no direct path leads to the receivers."""
    kinds = {"across" if in_memory(part.site) else part.site.stack for part in ends or ()}
    if len(kinds) > 1:
        raise InputError(
            "The receivers are of several kinds. Give those of one stack, or keys and values of cross-attention alone."
        )
    to = kinds.pop() if kinds else model.main.name
    stack = "encoder" if to == "across" else to
    if isinstance(asked, str) and asked == "heads" and len(model.cfg.stacks) > 1:
        asked = ["encoder.heads"] if stack == "encoder" else ["decoder.heads", "decoder.cross_attn.heads"]
    wanted = targets_of(model, asked)
    for part in (part for target in wanted for part in target.parts):
        if part.site.stack == stack:
            continue
        if part.site.stack == "encoder":
            raise InputError(
                f"{part.name} sends to the decoder through the encoder's output, which only cross-attention's keys and "
                'values read. Let them receive, e.g. "decoder.cross_attn.0.0.v", or a part of the encoder.'
            )
        raise InputError(
            f"{part.name} is in the decoder, and no path leads from it into the encoder or what is made of its output. "
            "Choose receivers in the decoder behind it."
        )
    return wanted, stack


def _receivers(model: HookedTransformer, asked: Any) -> list[Part] | None:
    """None for the logits; else the tensors that receive, with their heads."""
    if isinstance(asked, (str, Site)) or is_address(asked):
        asked = [asked]
    if not isinstance(asked, Iterable):
        raise InputError(f'receivers is {asked!r}. Give "logits", or inputs of heads such as "23.4.q".')
    asked, found = list(asked), []
    for one in asked:
        if one == "logits":
            if len(asked) > 1:
                raise InputError('Logits receive by themselves. Give heads\' inputs, or "logits" alone.')
            return None
        match = re.fullmatch(r"(.+\.\d+)\.([qkv])", one) if isinstance(one, str) else None
        if match is not None:
            head = Head.parse(match[1])
            check_prefix(model, one)
            if head.stack not in model.cfg.stacks:
                raise InputError(f'{one!r} names no stack. Write "encoder.attn.…" or "decoder.cross_attn.…" before it.')
            path = f"{head.sublayer}.hook_{match[2]}"
            site = model.sites.resolve(f"{head.stack}{'.' if head.stack else ''}blocks.{head.layer}.{path}")
            block = model.cfg.stacks[head.stack].blocks[head.layer]
            attn = block.cross_attn if head.sublayer == "cross_attn" else block.attn
            assert attn is not None
            size = attn.n_heads if match[2] == "q" else attn.n_key_value_heads
            if head.head >= size:
                kind = "heads" if match[2] == "q" else "key/value heads"
                raise InputError(f"{one} is not there: layer {head.layer} has {size} {kind}.")
            found.append(Part(site, head.head, one))
            continue
        check_prefix(model, one)
        site = model.sites.resolve(one)
        if site.layer is None or site.name in _OF_HEADS or site.name == "hook_cross_attn_out":
            raise InputError(f'{one!r} cannot receive. Give "logits", a head\'s input such as "23.4.q", or a tensor.')
        before = f"{site.stack + '.' if site.stack else ''}{'cross_attn.' if site.part == 'cross_attn' else ''}"
        found.append(Part(site, None, f"{before}{site.row.short[0]}.{site.layer}"))
    if not found:
        raise InputError('There are no receivers. Give "logits", or heads\' inputs such as "23.4.q".')
    return found


def _units(units: list[int] | None) -> Tensor | None:
    return None if units is None else torch.tensor([sorted(units)])


def _layer(site: Site) -> int:
    assert site.layer is not None
    return site.layer
