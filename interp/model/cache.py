"""What one pass read, by address. Tensors that follow from others are computed when asked for, not stored."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from interp.errors import InputError, StorageError, UnknownSiteError
from interp.files import atomic_folder, read_json, write_json
from interp.model.config import ModelConfig
from interp.model.derive import Deriver, book_of
from interp.model.peers import PEER_CACHE_METHODS
from interp.model.positions import Rows
from interp.sites import AddressBook, Site, SiteLike

__all__ = ["ActivationCache", "CacheContents", "PosSlice", "reader", "slice_positions"]

PosSlice = None | int | slice | Sequence[int]
_FORMAT = 1
_KEY_SITES = ("hook_k", "hook_rot_k")  # kept whole where positions are sliced: every query needs every key


@dataclass(frozen=True)
class CacheContents:
    """The tensors, and what is needed to compute others from them."""

    stored: dict[str, Tensor]  # by canonical name
    derived: frozenset[str]
    config: ModelConfig
    rows: dict[str, Rows]
    query_rows: dict[str, Rows]
    pos: Tensor | None = None  # which positions were kept, of the last stack's text
    gradients: dict[str, Tensor] | None = None


class ActivationCache(Mapping[Any, Tensor]):
    """A read-only mapping from any spelling of a site to its tensor, as it was after the hooks.

    `cache["q", 3]`, `cache["q.3"]` and `cache["blocks.3.attn.hook_q"]` are the same entry. Scores, patterns, head
    results, rotated queries and keys, norms and `mlp.post` are computed on each access unless the pass stored them.
    """

    def __init__(self, contents: CacheContents, *, model: object = None, has_batch_dim: bool = True):
        self._contents = contents
        self._book: AddressBook = getattr(model, "sites", None) or book_of(contents.config)
        self._model = weakref.ref(model) if model is not None else None
        self.has_batch_dim = has_batch_dim

    def __getitem__(self, address: SiteLike) -> Tensor:
        if isinstance(address, str) and address.endswith("_grad"):
            return self.grad(address.removesuffix("_grad"))
        site = self._book.resolve(address)
        self._must_hold(site)
        return self._narrowed(site, self._get(site))

    def __iter__(self) -> Iterator[str]:
        held = self._contents.stored.keys() | self._contents.derived
        return (name for name in self._book.names if name in held)

    def __len__(self) -> int:
        return len(self._contents.stored.keys() | self._contents.derived)

    def __contains__(self, address: object) -> bool:
        try:
            site = self._book.resolve(address)  # type: ignore[arg-type]
        except UnknownSiteError:
            return False
        return str(site) in self._contents.stored or str(site) in self._contents.derived

    def __repr__(self) -> str:
        size = sum(x.untyped_storage().nbytes() for x in _distinct(self._contents.stored.values()))
        return f"ActivationCache({len(self)} sites, {len(self.stored)} stored in {size / 1e6:.1f} MB)"

    @property
    def stored(self) -> list[str]:
        """Sites held in memory; the others are computed on access."""
        return list(self._contents.stored)

    def grad(self, address: SiteLike) -> Tensor:
        """The gradient of the output at a site, after `run_with_cache(…, incl_bwd=True)`."""
        site = self._book.resolve(address)
        name = str(site)
        gradients = self._contents.gradients
        if gradients is None:
            raise UnknownSiteError("This cache holds no gradients. Make it with run_with_cache(…, incl_bwd=True).")
        if name not in gradients:
            raise UnknownSiteError(f"This cache holds no gradient of {name}. Add it to names_filter.")
        return self._narrowed(site, gradients[name])

    def to(self, device: torch.device | str) -> ActivationCache:
        """A copy on another device. Tensors that were one stay one."""
        moved: dict[int, Tensor] = {}

        def move(x: Tensor) -> Tensor:
            return moved.setdefault(id(x), x.to(device))

        c = self._contents
        contents = replace(
            c,
            stored={name: move(x) for name, x in c.stored.items()},
            rows={name: rows.to(device) for name, rows in c.rows.items()},
            query_rows={name: rows.to(device) for name, rows in c.query_rows.items()},
            pos=None if c.pos is None else c.pos.to(device),
            gradients=None if c.gradients is None else {name: move(x) for name, x in c.gradients.items()},
        )
        return self._with(contents)

    def slice(self, *, batch: PosSlice = None, pos: PosSlice = None) -> ActivationCache:
        """Some rows and positions of everything (copies, so the rest can be freed). Axes stay; an int keeps one."""
        contents = self._contents
        if batch is not None:
            contents = _slice_batch(contents, batch)
        if pos is not None:
            contents = slice_positions(contents, pos)
        return self._with(contents)

    def remove_batch_dim(self) -> ActivationCache:
        """The same cache without the batch axis, for a batch of one."""
        sizes = {len(x) for x in self._contents.stored.values()}
        if sizes != {1}:
            raise InputError(
                f"Only a batch of one can lose its axis; this cache has {max(sizes, default=0)} rows. Slice it first."
            )
        return ActivationCache(self._contents, model=self._bound(), has_batch_dim=False)

    def bind(self, model: object) -> ActivationCache:
        """The same cache with a model to take weights from, so that `result` can be computed after `load`."""
        config = getattr(model, "cfg", None)
        made_by = self._contents.config
        if not isinstance(config, ModelConfig) or _shape(config) != _shape(made_by):
            raise InputError("This cache was made by a model of another architecture. Bind the model that made it.")
        return ActivationCache(self._contents, model=model, has_batch_dim=self.has_batch_dim)

    @property
    def model(self) -> Any:
        """The model that made this cache. Raises `UnknownSiteError` once it is gone, or after `load`."""
        model = self._bound()
        if model is None:
            raise UnknownSiteError("This cache stands alone, and its model's weights are needed. Call .bind(model).")
        return model

    def __getattr__(self, name: str) -> Any:
        if name in PEER_CACHE_METHODS:
            raise AttributeError(f"There is no cache.{name}: {PEER_CACHE_METHODS[name]}")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    # TransformerLens' methods; interp.circuits.decomposition, which stands above this room, says what they take.

    def accumulated_resid(self, layer: int | None = None, incl_mid: bool = False, **options: Any) -> Any:
        """The residual stream entering each layer up to `layer`, stacked."""
        return _decomposition().accumulated_resid(self, layer, incl_mid=incl_mid, **options)

    def decompose_resid(self, layer: int | None = None, **options: Any) -> Any:
        """What was added to the residual stream before `layer`, stacked: embeddings and each sublayer's output."""
        return _decomposition().decompose_resid(self, layer, **options)

    def stack_head_results(self, layer: int | None = None, **options: Any) -> Any:
        """What each head before `layer` added to the residual stream, stacked."""
        return _decomposition().stack_head_results(self, layer, **options)

    def apply_ln_to_stack(self, residual_stack: Tensor, layer: int | None = None, **options: Any) -> Tensor:
        """Parts of the residual stream as the norm in front of `layer` passes them on."""
        return _decomposition().apply_ln_to_stack(self, residual_stack, layer, **options)

    def logit_attrs(self, residual_stack: Tensor, tokens: Any, incorrect_tokens: Any = None, **options: Any) -> Tensor:
        """What each part of a stack adds to the logit of `tokens`, or to a logit difference."""
        return _decomposition().logit_attrs(self, residual_stack, tokens, incorrect_tokens, **options)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a folder: tensors.safetensors and cache.json. A tensor that stands at two sites is written once."""
        c = self._contents
        named = c.stored | {f"{name}_grad": x for name, x in (c.gradients or {}).items()}
        for stack, rows in [*c.rows.items(), *((f"{name}/queries", rows) for name, rows in c.query_rows.items())]:
            named |= {
                f"rows/{stack}/{key}": getattr(rows, key) for key in _ROW_TENSORS if getattr(rows, key) is not None
            }
        if c.pos is not None:
            named["pos"] = c.pos
        first = {}
        aliases = {name: first.setdefault(_identity(x), name) for name, x in named.items()}
        about = {
            "format": _FORMAT,
            "config": c.config.to_dict(),
            "derived": sorted(c.derived),
            "rows": {name: {one: getattr(rows, one) for one in _ROW_NUMBERS} for name, rows in c.rows.items()},
            "aliases": {name: kept for name, kept in aliases.items() if name != kept},
            "gradients": c.gradients is not None,
            "has_batch_dim": self.has_batch_dim,
        }
        with atomic_folder(path, marker="cache.json") as folder:
            tensors = {name: named[name].detach().contiguous().clone() for name in dict.fromkeys(aliases.values())}
            try:
                save_file(tensors, folder / "tensors.safetensors")
            except SafetensorError as error:
                raise OSError(str(error)) from error
            write_json(folder / "cache.json", about)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, device: torch.device | str = "cpu") -> ActivationCache:
        """Read what `save` wrote. Raises `StorageError` for a damaged or newer folder."""
        folder = Path(path)
        about = read_json(folder / "cache.json")
        if not isinstance(about, dict) or about.get("format") != _FORMAT:
            raise StorageError(f"{folder} is no cache of format {_FORMAT}. Save it again with this version.")
        try:
            with safe_open(folder / "tensors.safetensors", "pt", device=str(device)) as file:
                named = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise StorageError(f"Cannot read {folder / 'tensors.safetensors'}: {error}") from error
        try:
            named |= {name: named[kept] for name, kept in about["aliases"].items()}
            return cls(_from_saved(about, named), has_batch_dim=bool(about["has_batch_dim"]))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise StorageError(f"{folder} is damaged: its parts do not fit together ({error!r}).") from error

    def _get(self, site: Site) -> Tensor:
        if str(site) in self._contents.stored:
            return self._contents.stored[str(site)]
        rows = self._contents.rows if site.name in _KEY_SITES else self._contents.query_rows
        return Deriver(self._contents.config, rows, self._weights)(site, self._get)

    def _weights(self, site: Site) -> Tensor:
        model = self._bound()
        if model is None:
            raise UnknownSiteError(
                f"{site} is computed with the model's W_O, which this cache does not hold. Call .bind(model) first."
            )
        blocks = model.get_submodule(f"{site.stack}.blocks") if site.stack else model.blocks  # type: ignore[attr-defined]
        attn = getattr(blocks[site.layer], site.part)
        return attn.W_O.detach().to(next(iter(self._contents.stored.values())).device)

    def _bound(self) -> Any:
        return self._model() if self._model is not None else None

    def _with(self, contents: CacheContents) -> ActivationCache:
        return ActivationCache(contents, model=self._bound(), has_batch_dim=self.has_batch_dim)

    def _must_hold(self, site: Site) -> None:
        if str(site) in self._contents.stored or str(site) in self._contents.derived:
            return
        same = [name for name in self if name.endswith(site.row.path)]
        example = (same or list(self) or ["nothing"])[0]
        raise UnknownSiteError(
            f"{site} was not read; this cache holds {len(self)} sites, e.g. {example}. Add it to names_filter."
        )

    def _narrowed(self, site: Site, x: Tensor) -> Tensor:
        """Keys are kept whole where positions are sliced, since every query needs them; they are cut on the way out."""
        pos, sliced = self._contents.pos, site.stack == _sliced_stack(self._contents.config)
        if pos is not None and sliced and site.name in _KEY_SITES and "pos" in site.axes:
            x = x[:, pos]
        return x if self.has_batch_dim else x[0]


def _decomposition() -> Any:
    return import_module("interp.circuits.decomposition")


_ROW_NUMBERS = ("past", "n_keys", "max_distance")
_ROW_TENSORS = ("positions", "key_mask", "queries", "relative")


def slice_positions(contents: CacheContents, pos: PosSlice, *, rows_only: bool = False) -> CacheContents:
    """Keep some positions of the last stack's text, in copies. `rows_only`: the tensors were cut as they were read."""
    stack = _sliced_stack(contents.config)
    n_now = contents.query_rows[stack].positions.shape[1]
    index = _index(pos, n_now, "position", contents.query_rows[stack].positions.device)
    memo: dict[int, Tensor] = {}

    def keep(name: str, x: Tensor) -> Tensor:
        site = Site.parse(name)
        axis = next((i for i, name in enumerate(site.axes) if name in ("pos", "q_pos")), None)
        if rows_only or axis is None or site.stack not in (stack, "") or site.name in _KEY_SITES:
            return x
        return memo.setdefault(id(x), x.index_select(axis, index.to(x.device)))

    gradients = contents.gradients
    return replace(
        contents,
        stored={name: keep(name, x) for name, x in contents.stored.items()},
        query_rows={**contents.query_rows, stack: contents.query_rows[stack].at(index)},
        pos=index if contents.pos is None else contents.pos[index],
        gradients=None if gradients is None else {name: keep(name, x) for name, x in gradients.items()},
    )


def _slice_batch(contents: CacheContents, batch: PosSlice) -> CacheContents:
    n_rows = max((len(x) for x in contents.stored.values()), default=0)
    index = _index(batch, n_rows, "row", torch.device("cpu"))
    memo: dict[int, Tensor] = {}

    def keep(x: Tensor) -> Tensor:
        return memo.setdefault(id(x), x.index_select(0, index.to(x.device)))

    gradients = contents.gradients
    return replace(
        contents,
        stored={name: keep(x) for name, x in contents.stored.items()},
        rows={name: rows.select(index.to(rows.positions.device)) for name, rows in contents.rows.items()},
        query_rows={name: rows.select(index.to(rows.positions.device)) for name, rows in contents.query_rows.items()},
        gradients=None if gradients is None else {name: keep(x) for name, x in gradients.items()},
    )


def _index(wanted: PosSlice, size: int, what: str, device: torch.device) -> Tensor:
    """The chosen indices, from 0; negative ones count from the end, as in Python."""
    everything = torch.arange(size, device=device)
    if isinstance(wanted, slice):
        chosen = everything[wanted]
    else:
        asked = torch.as_tensor(
            [wanted] if isinstance(wanted, int) else ([] if wanted is None else list(wanted)), device=device
        )  # type: ignore[arg-type]
        if ((asked < -size) | (asked >= size)).any():
            raise InputError(f"{what} {asked.tolist()} is outside 0 to {size - 1}.")
        chosen = everything[asked.long()]
    if not len(chosen):
        raise InputError(f"{wanted!r} leaves no {what} of {size}. Choose at least one.")
    return chosen


def _shape(config: ModelConfig) -> tuple[object, ...]:
    return config.stacks, config.d_model, config.d_vocab


def _sliced_stack(config: ModelConfig) -> str:
    return list(config.stacks)[-1]


def _identity(x: Tensor) -> tuple[object, ...]:
    return (x.data_ptr(), x.shape, x.stride(), x.dtype)


def _distinct(tensors: Iterable[Tensor]) -> list[Tensor]:
    return list({x.untyped_storage().data_ptr(): x for x in tensors}.values())


def _from_saved(about: dict[str, Any], named: dict[str, Tensor]) -> CacheContents:
    def rows(stack: str, suffix: str = "") -> Rows:
        tensors = {key: named.get(f"rows/{stack}{suffix}/{key}") for key in _ROW_TENSORS}
        return Rows(**tensors, **about["rows"][stack])  # type: ignore[arg-type]

    plain = {name for name in named if not name.startswith("rows/") and name != "pos"}
    gradients = {name.removesuffix("_grad"): named[name] for name in plain if name.endswith("_grad")}
    return CacheContents(
        stored={name: named[name] for name in plain if not name.endswith("_grad")},
        derived=frozenset(about["derived"]),
        config=ModelConfig.from_dict(about["config"]),
        rows={stack: rows(stack) for stack in about["rows"]},
        query_rows={stack: rows(stack, "/queries") for stack in about["rows"]},
        pos=named.get("pos"),
        gradients=gradients if about["gradients"] else None,
    )


def reader(
    config: ModelConfig, *, pos: PosSlice, device: torch.device | str | None, n_pos: int
) -> Callable[[str, Tensor], Tensor] | None:
    """What `Taps` does to each tensor it keeps, so that sliced or moved caches never hold the whole."""
    if pos is None and device is None:
        return None
    stack = _sliced_stack(config)
    last: list[tuple[Tensor, Tensor] | None] = [None]  # neighbours in the stream are often one tensor

    def keep(name: str, x: Tensor) -> Tensor:
        if last[0] is not None and last[0][0] is x:
            return last[0][1]
        site, kept = Site.parse(name), x
        axis = next((i for i, axis in enumerate(site.axes) if axis in ("pos", "q_pos")), None)
        sliced = pos is not None and axis is not None and site.stack in (stack, "") and site.name not in _KEY_SITES
        if site.name == "hook_unembed" and x.shape[1] != n_pos:
            sliced = False  # the logits of chosen positions are not cut again
        if sliced:
            kept = kept.index_select(axis or 0, _index(pos, n_pos, "position", x.device))
        kept = kept if device is None else kept.to(device)
        last[0] = (x, kept)
        return kept

    return keep
