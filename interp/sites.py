"""The address book: every tensor that one forward pass makes, its axes, and the ways to spell it.

`TABLE` is the only place where a tensor's name and axes are written down. A `Site` is one row of it at one
layer of one stack; an `AddressBook` holds the sites that a particular model has and finds them by any spelling:

    blocks.3.attn.hook_q          canonical
    q.3   q3   ("q", 3)           short, as `get_act_name` and cache indexing take them
    blocks.3.attn.q.hook_out      TransformerLens 4 (bridge)
    decoder.cross_attn.pattern.5  short, in a model with two stacks
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from interp.errors import InputError, UnknownSiteError

__all__ = ["TABLE", "AddressBook", "Head", "Site", "SiteFilter", "SiteLike", "SiteRow", "get_act_name"]


@dataclass(frozen=True)
class SiteRow:
    """One tensor of the forward pass, apart from where it stands."""

    part: str  # "" for the block or the stack itself
    name: str
    axes: tuple[str, ...]
    short: tuple[str, ...]
    bridge: tuple[str, ...] = ()
    in_block: bool = True

    @property
    def path(self) -> str:
        return f"{self.part}.{self.name}" if self.part else self.name


def _row(path: str, axes: str, short: str, bridge: str = "", *, in_block: bool = True) -> SiteRow:
    part, _, name = path.rpartition(".")
    return SiteRow(part, name, tuple(axes.split()), tuple(short.split()), tuple(bridge.split()), in_block)


def _attention(part: str, keys: str) -> list[SiteRow]:
    """`keys` names the axis that keys and values run along: `pos`, or `k_pos` where it is another text's."""
    return [
        _row(f"{part}.hook_q", "batch pos head d_head", "q query", f"{part}.q.hook_out"),
        _row(f"{part}.hook_k", f"batch {keys} kv_head d_head", "k key", f"{part}.k.hook_out"),
        _row(f"{part}.hook_v", f"batch {keys} kv_head d_head", "v value", f"{part}.v.hook_out"),
        _row(f"{part}.hook_rot_q", "batch pos head d_head", "rot_q"),
        _row(f"{part}.hook_rot_k", f"batch {keys} kv_head d_head", "rot_k"),
        _row(f"{part}.hook_attn_scores", "batch head q_pos k_pos", "attn_scores attn_logits scores"),
        _row(f"{part}.hook_pattern", "batch head q_pos k_pos", "pattern attn"),
        _row(f"{part}.hook_z", "batch pos head d_head", "z", f"{part}.o.hook_in"),
        _row(f"{part}.hook_result", "batch pos head d_model", "result"),
    ]


def _norm(part: str, *, in_block: bool = True) -> list[SiteRow]:
    return [
        _row(f"{part}.hook_scale", "batch pos one", "scale", in_block=in_block),
        _row(f"{part}.hook_normalized", "batch pos d_model", "normalized", in_block=in_block),
    ]


_RESID = "batch pos d_model"


def _after(part: str) -> list[SiteRow]:
    """A norm on what a sublayer adds: what goes into it is the sublayer's own sum."""
    return [_row(f"{part}.hook_in", _RESID, f"{part}_in in"), *_norm(part)]


TABLE: tuple[SiteRow, ...] = (
    _row("hook_embed", _RESID, "embed", "embed.hook_out", in_block=False),
    _row("hook_pos_embed", _RESID, "pos_embed", "pos_embed.hook_out", in_block=False),
    _row("hook_resid_pre", _RESID, "resid_pre", "hook_in ln1.hook_in"),
    *_norm("ln1"),
    *_attention("attn", "pos"),
    *_after("ln1_post"),
    _row("hook_attn_out", _RESID, "attn_out", "attn.hook_out"),
    _row("hook_resid_mid", _RESID, "resid_mid", "ln2.hook_in"),
    *_norm("ln2"),
    *_attention("cross_attn", "k_pos"),
    *_after("ln2_post"),
    _row("hook_cross_attn_out", _RESID, "cross_attn_out", "cross_attn.hook_out"),
    _row("hook_resid_mid_cross", _RESID, "resid_mid_cross", "ln3.hook_in"),
    *_norm("ln3"),
    _row("mlp.hook_pre", "batch pos d_mlp", "pre mlp_pre", "mlp.gate.hook_out mlp.in.hook_out"),
    _row("mlp.hook_pre_linear", "batch pos d_mlp", "pre_linear", "mlp.in.hook_out"),
    _row("mlp.hook_post", "batch pos d_mlp", "post mlp_post", "mlp.out.hook_in"),
    *_after("ln3_post"),
    _row("hook_mlp_out", _RESID, "mlp_out", "mlp.hook_out"),
    _row("hook_resid_post", _RESID, "resid_post", "hook_out"),
    *_norm("ln_final", in_block=False),
    _row("hook_unembed", "batch pos d_vocab", "unembed logits", "unembed.hook_out", in_block=False),
)
_ROWS = {(row.part, row.name, row.in_block): row for row in TABLE}
_STACKS = ("encoder", "decoder")
_PART_ALIASES = {"a": "attn", "attention": "attn", "m": "mlp", "b": "", "block": "", "blocks": ""}
_CANONICAL = re.compile(r"(?:(?P<stack>encoder|decoder)\.)?(?:blocks\.(?P<layer>-?\d{1,9})\.)?(?P<path>[a-z0-9_.]+)\Z")
_BRIDGE_STACK = re.compile(r"\A(encoder|decoder)_(?=blocks\.|ln_final\.|embed\.|pos_embed\.|embed_ln\.)")
_BRIDGE_ENCODER = re.compile(r"(embed|pos_embed|embed_ln)\.hook_(in|out)\Z")  # without a stack they are the encoder's
_COMPACT = re.compile(r"(?P<name>[a-z_]*[a-z])(?P<layer>\d{1,9})(?P<part>[a-z]\w*)?\Z")


@dataclass(frozen=True)
class Site:
    """Where one tensor stands. `str(site)` is its canonical spelling and `Site.parse` reads it back.

    `stack` is "" in a model with one stack, else "encoder" or "decoder"; `layer` is None outside the blocks.
    """

    name: str
    part: str = ""
    layer: int | None = None
    stack: str = ""

    def __post_init__(self) -> None:
        if (self.part, self.name, self.layer is not None) not in _ROWS:
            path = f"{self.part}.{self.name}" if self.part else self.name
            where = "inside" if self.layer is not None else "outside"
            raise UnknownSiteError(f"There is no tensor {path!r} {where} the blocks. {_nearest(path, _all_paths())}")

    @classmethod
    def parse(cls, text: str) -> Site:
        """The site of a canonical spelling; raises `UnknownSiteError` for any other."""
        match = _CANONICAL.match(text)
        if match is None:
            raise UnknownSiteError(f"{text!r} is not the name of a tensor. {_nearest(text, _all_paths())}")
        part, _, name = match["path"].rpartition(".")
        layer = int(match["layer"]) if match["layer"] is not None else None
        return cls(name, part, layer, match["stack"] or "")

    @property
    def row(self) -> SiteRow:
        return _ROWS[self.part, self.name, self.layer is not None]

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the tensor's axes, in the order they come."""
        return self.row.axes

    @property
    def address(self) -> str:
        """Everything before the tensor's own name, e.g. `blocks.3.attn.`"""
        return str(self)[: -len(self.name)]

    def __str__(self) -> str:
        stack = f"{self.stack}." if self.stack else ""
        block = f"blocks.{self.layer}." if self.layer is not None else ""
        return f"{stack}{block}{self.row.path}"


@dataclass(frozen=True, order=True)
class Head:
    """The address of one attention head: `"23.4"`, or `"decoder.cross_attn.5.3"` where a model has several kinds."""

    layer: int
    head: int
    sublayer: str = "attn"
    stack: str = ""

    @classmethod
    def parse(cls, text: str) -> Head:
        match = re.match(r"(?:(encoder|decoder)\.)?(?:(attn|cross_attn)\.)?(\d+)\.(\d+)\Z", str(text))
        if match is None:
            raise InputError(f'{text!r} is not a head. Write layer.head, as in "23.4" or "decoder.cross_attn.5.3".')
        stack, sublayer, layer, head = match.groups()
        return cls(int(layer), int(head), sublayer or "attn", stack or "")

    def __str__(self) -> str:
        if not self.stack and self.sublayer == "attn":
            return f"{self.layer}.{self.head}"
        return f"{self.stack + '.' if self.stack else ''}{self.sublayer}.{self.layer}.{self.head}"


SiteLike = str | Site | tuple
SiteFilter = None | SiteLike | Sequence[SiteLike] | Callable[[str], bool]


class AddressBook:
    """The sites one model has, in the order the forward pass reaches them."""

    def __init__(
        self, sites: Iterable[Site], n_layers: dict[str, int], spellings: Mapping[str, str | None] | None = None
    ):
        """`spellings` are this model's own, besides the table's: to a canonical one, or to None where a name that
        other models have means no tensor of this one."""
        self._sites = {str(site): site for site in sites}
        self._n_layers = dict(n_layers)  # stack -> number of layers
        self._spellings = dict(spellings or {})

    def __iter__(self) -> Iterator[Site]:
        return iter(self._sites.values())

    def __repr__(self) -> str:
        return f"AddressBook({len(self)} sites: {', '.join(self.names[:2])}, …). print() lists them with their axes."

    def __str__(self) -> str:
        """A line per tensor: its name (layers that have it in one line, as `blocks.{0–29}.…`) and its axes."""
        layers: dict[tuple[str, str, bool], list[int]] = {}
        for site in self:
            layers.setdefault((site.stack, site.row.path, site.layer is not None), []).append(site.layer or 0)
        rows = []
        for (stack, path, in_block), held in layers.items():
            block = f"blocks.{{{_ranges(held)}}}." if in_block else ""
            name = f"{stack}.{block}{path}" if stack and path != "hook_unembed" else block + path
            rows.append((name, " ".join(_ROWS[path.rpartition(".")[0], path.rpartition(".")[2], in_block].axes)))
        width = max((len(name) for name, _ in rows), default=0)
        return "\n".join(f"{name:{width}}  {axes}" for name, axes in rows)

    def __len__(self) -> int:
        return len(self._sites)

    def __contains__(self, name: object) -> bool:
        return str(name) in self._sites

    def __getitem__(self, name: str) -> Site:
        """The site of a canonical spelling (fast; `resolve` takes any)."""
        return self._sites[name]

    @property
    def names(self) -> list[str]:
        """Canonical spellings in forward order."""
        return list(self._sites)

    def resolve(self, address: SiteLike) -> Site:
        """The site that any spelling means; raises `UnknownSiteError` naming the nearest ones that exist."""
        text = (
            ".".join(str(part) for part in address if part is not None) if isinstance(address, tuple) else str(address)
        )
        found = self._lookup(text)
        if len(found) == 1:
            return found[0]
        if found:
            names = " or ".join(str(site) for site in found[:4])
            raise UnknownSiteError(f"{text!r} could mean {names}. Say which by its full name.")
        if self._spellings.get(self._plain(text), "") is None:
            raise UnknownSiteError(
                f"What TransformerLens calls {text!r} has no site in this model. docs/from_transformer_lens.md says "
                "what differs, and what to read instead."
            )
        raise UnknownSiteError(f"This model has no tensor {text!r}. {self._hint(text)}")

    def select(self, wanted: SiteFilter) -> list[Site]:
        """The sites that a `names_filter` picks: None (all), one spelling, several, or a test of the canonical name.

        A test that picks nothing raises, since a filter that silently reads nothing hides a misspelling.
        """
        if wanted is None:
            return list(self)
        if callable(wanted):
            found = [site for name, site in self._sites.items() if wanted(name)]
            if not found:
                names = ", ".join(self.names[:3])
                raise UnknownSiteError(f"The filter picked none of the {len(self)} tensors of this model ({names}, …).")
            return found
        if isinstance(wanted, (str, Site)) or (isinstance(wanted, tuple) and _is_coordinates(wanted)):
            return [self.resolve(wanted)]
        if not isinstance(wanted, Iterable):
            raise UnknownSiteError(
                f"{wanted!r} is no filter. Give a name, a list of names, a function of a name, or None."
            )
        return list(dict.fromkeys(self.resolve(one) for one in wanted))

    def _lookup(self, text: str) -> list[Site]:
        if text in self._sites:
            return [self._sites[text]]
        text = self._plain(text)
        if text in self._spellings:
            target = self._spellings[text]
            return [self._sites[target]] if target is not None else []
        stack, rest = _split_stack(text)
        candidates = list(self._by_spelling.get((stack, self._from_the_end(rest, stack)), ()))
        if candidates:
            return candidates
        name, layer, part = _split_short(rest)
        if name is None:
            return []
        if layer is not None and layer < 0:
            layer += self._n_layers.get(stack, next(iter(self._n_layers.values())))
        found = [
            site
            for site in self
            if name in (*site.row.short, site.name)
            and site.layer == layer
            and stack in ("", site.stack)
            and (part is None or part == site.part)
        ]
        if part is None and len({site.stack for site in found}) == 1 and len(found) > 1:
            found = [site for site in found if site.part == "attn"] or found  # "q.3" is self-attention's
        return found

    def _plain(self, text: str) -> str:
        """TransformerLens' names of stacks as ours, and layers counted from the first."""
        if len(self._n_layers) > 1:
            text = _BRIDGE_STACK.sub(r"\1.", text.replace(".self_attn.", ".attn."))
            text = f"encoder.{text}" if _BRIDGE_ENCODER.match(text) else text
        stack, rest = _split_stack(text)
        return f"{stack + '.' if stack else ''}{self._from_the_end(rest, stack)}"

    def _from_the_end(self, rest: str, stack: str) -> str:
        """Negative layers count from the last one, as in Python."""
        match = re.match(r"blocks\.(-\d{1,9})\.", rest)
        if match is None:
            return rest
        layer = int(match[1]) + self._n_layers.get(stack, next(iter(self._n_layers.values())))
        return f"blocks.{layer}.{rest[match.end() :]}"

    @cached_property
    def _by_spelling(self) -> dict[tuple[str, str], list[Site]]:
        """(stack or "", canonical or bridge spelling without the stack) -> sites; the first row of a tensor wins."""
        found: dict[tuple[str, str], dict[str, Site]] = {}
        for spell in (lambda row: (row.path,), lambda row: row.bridge):
            for site in self:
                block = f"blocks.{site.layer}." if site.layer is not None else ""
                for path in spell(site.row):
                    for stack in {"", site.stack}:
                        found.setdefault((stack, block + path), {}).setdefault(site.stack, site)
        # In a gated MLP `in` is the linear half; without a gate it is the only half.
        for site in self:
            if site.name == "hook_pre_linear":
                for stack in {"", site.stack}:
                    found[stack, f"blocks.{site.layer}.mlp.in.hook_out"][site.stack] = site
        return {key: list(sites.values()) for key, sites in found.items()}

    def _hint(self, text: str) -> str:
        _, rest = _split_stack(text)
        layer = re.search(r"(?<![a-z_\d])(\d{1,9})(?!\d)", rest)
        counts = sorted(set(self._n_layers.values()))
        if layer and int(layer[1]) >= max(counts, default=0):
            return f"It has layers 0 to {max(counts) - 1}."
        spellings = list(self._sites) + [
            f"{short}.{site.layer}" for site in self for short in site.row.short if site.layer is not None
        ]
        return _nearest(text, spellings)


def get_act_name(name: str, layer: int | str | None = None, layer_type: str | None = None) -> str:
    """The canonical spelling of a short name: `get_act_name("q", 3) == "blocks.3.attn.hook_q"`.

    Takes what TransformerLens' function of this name takes (`("normalized", 27, "ln2")`, `"k6"`, `"scale4ln1"`),
    and raises `UnknownSiteError` for a name that no model could have.
    """
    if layer is None and layer_type is None and ("." in name or name.startswith("hook_")):
        return str(Site.parse(name))
    if layer is None and layer_type is None:
        short, number, part = _split_short(name)
    else:
        if layer is not None and not re.fullmatch(r"-?\d{1,9}", str(layer)):
            raise UnknownSiteError(f"{layer!r} is no layer. Give a number, as in ({name!r}, 3).")
        short, number, part = name, (int(layer) if layer is not None else None), layer_type
    part = _PART_ALIASES.get(part, part) if part is not None else None
    rows = [row for row in TABLE if short in row.short and row.in_block == (number is not None)]
    rows = [row for row in rows if part in (None, row.part)]
    if not rows:
        spelled = ", ".join(str(x) for x in (name, layer, layer_type) if x is not None)
        raise UnknownSiteError(
            f"No tensor is called ({spelled}). {_nearest(name, [s for row in TABLE for s in row.short])}"
        )
    if rows[0].part == "ln1" and part is None:
        raise UnknownSiteError(f"{name!r} needs its norm: ({name!r}, {number}, 'ln1') or ({name!r}, {number}, 'ln2').")
    return str(Site(rows[0].name, rows[0].part, number))


def _ranges(numbers: Sequence[int]) -> str:
    """`0–4, 6` for 0, 1, 2, 3, 4, 6."""
    ends = [n for n in numbers if n - 1 not in numbers], [n for n in numbers if n + 1 not in numbers]
    return ", ".join(f"{a}" if a == b else f"{a}–{b}" for a, b in zip(*ends, strict=True))


def _split_stack(text: str) -> tuple[str, str]:
    stack, dot, rest = text.partition(".")
    return (stack, rest) if dot and stack in _STACKS else ("", text)


def _split_short(text: str) -> tuple[str | None, int | None, str | None]:
    """name, layer and part of `q.3`, `q3`, `scale.3.ln1`, `scale4ln1`, `cross_attn.q.3`, `embed`."""
    words = text.split(".")
    if len(words) == 1:
        match = _COMPACT.match(text)
        if match and not text.startswith("hook_"):
            return match["name"], int(match["layer"]), _PART_ALIASES.get(match["part"], match["part"])
        return text, None, None
    numbers = [i for i, word in enumerate(words) if re.fullmatch(r"-?\d{1,9}", word)]
    if len(numbers) > 1 or len(words) - len(numbers) > 2:
        return None, None, None
    layer = int(words[numbers[0]]) if numbers else None
    before = words[: numbers[0]] if numbers else words
    after = words[numbers[0] + 1 :] if numbers else []
    if len(before) == 2 and not after:
        return before[1], layer, _PART_ALIASES.get(before[0], before[0])
    if len(before) == 1:
        part = after[0] if after else None
        return before[0], layer, _PART_ALIASES.get(part, part) if part is not None else None
    return None, None, None


def _is_coordinates(wanted: tuple) -> bool:
    """("q", 3) is one site; ("q.3", "k.3") is several."""
    return any(isinstance(part, int) for part in wanted)


def _all_paths() -> list[str]:
    return [("blocks.0." if row.in_block else "") + row.path for row in TABLE]


def _nearest(text: str, among: Iterable[str]) -> str:
    names = list(dict.fromkeys(among))
    near = difflib.get_close_matches(text, names, n=3, cutoff=0.5)
    return f"Near it: {', '.join(near)}." if near else f"There are, for example: {', '.join(names[:4])}."
