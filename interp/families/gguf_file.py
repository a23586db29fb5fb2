"""GGUF files: parsed and dequantised by the `gguf` library, with the time it loses on long arrays won back."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import CheckpointError, StorageError, UnsupportedModelError
from interp.families import converted
from interp.families.base import Checkpoint, family_for_gguf
from interp.families.fields import Fields
from interp.files import content_hash
from interp.model.config import ModelConfig

if TYPE_CHECKING:
    from gguf.constants import GGMLQuantizationType
    from gguf.gguf_reader import ReaderTensor

__all__ = ["GGUFFile", "is_gguf", "open_gguf"]

_MAGIC = b"GGUF"
_SAMPLES = 1 << 19  # values dequantised at once: few enough for the processor's cache, enough to outweigh each call
_DAMAGE = (ValueError, IndexError, KeyError, OverflowError, MemoryError, struct.error)


def is_gguf(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as GGUF does."""
    with open(path, "rb") as file:
        return file.read(4) == _MAGIC


def open_gguf(path: Path, *, ignore: tuple[str, ...] = (), with_tokenizer: bool = True) -> Checkpoint:
    """The checkpoint in a GGUF file, from the cache of converted weights where it is there.

    Raises `CheckpointError` for a damaged file, `UnsupportedModelError` for an unknown architecture, metadata key,
    tensor or quantisation.
    """
    _check_start(path)
    try:
        content = content_hash(path)
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {error.strerror or error}. Check its rights.") from error
    stored = converted.open_entry(converted.cache_key(content, ignore), with_tokenizer=with_tokenizer)
    return stored or _convert(GGUFFile(path), content, ignore, with_tokenizer)


class GGUFFile:
    """A parsed GGUF file: metadata as plain Python, tensors dequantised on demand."""

    def __init__(self, path: Path):
        _check_start(path)
        self.path = path
        try:
            reader = _reader_class()(path)
            self.metadata = {name: _plain(field) for name, field in reader.fields.items()}
            self._stored = {tensor.name: _Stored.of(tensor) for tensor in reader.tensors}
            self.shapes = {name: stored.shape for name, stored in self._stored.items()}  # outermost axis first
        except _DAMAGE as error:
            raise CheckpointError(
                f"{path} is damaged or cut short ({os.path.getsize(path):,} bytes; {type(error).__name__}: {error}). "
                "Download it again."
            ) from error
        if self.metadata.get("split.count", 1) not in (0, 1):
            raise UnsupportedModelError(f"{path} is one part of a split file. Join the parts with gguf-split --merge.")

    def tensor(self, name: str) -> Float[Tensor, "..."]:
        """One tensor, dequantised to float32."""
        out = torch.empty(self.shapes[name])
        for piece in self._pieces(name, out):
            piece()
        return out

    def tensors(self, pool: ThreadPoolExecutor) -> dict[str, Float[Tensor, "..."]]:
        """All tensors in float32; the pool's threads share the large ones."""
        out = {name: torch.empty(shape) for name, shape in self.shapes.items()}
        pieces = (piece for name, target in out.items() for piece in self._pieces(name, target))
        for _ in pool.map(lambda piece: piece(), pieces):
            pass
        return out

    def refuse_unknown_quantisations(self) -> None:
        """Raise `UnsupportedModelError` for a tensor that the `gguf` library cannot dequantise."""
        import numpy as np
        from gguf.constants import GGML_QUANT_SIZES
        from gguf.quants import dequantize

        for kind, name in {stored.kind: name for name, stored in self._stored.items()}.items():
            try:
                dequantize(np.zeros((1, GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
            except NotImplementedError as error:
                raise UnsupportedModelError(
                    f"{self.path} stores {name} as {kind.name}, which the gguf library cannot dequantise. "
                    "Use a file in F32, F16, BF16, Q8_0, Q4_K_M or another common kind."
                ) from error

    def _pieces(self, name: str, out: Tensor) -> Iterator[Callable[[], None]]:
        """Tasks that each dequantise one run of whole blocks into `out`. The library's own loop takes 16 rows at a
        time, which for narrow matrices is many small calls; blocks do not know about rows, so longer runs are equal."""
        import numpy as np
        from gguf.constants import GGML_QUANT_SIZES
        from gguf.quants import dequantize

        stored, target = self._stored[name], out.numpy().reshape(-1)
        n_values, n_bytes = GGML_QUANT_SIZES[stored.kind]
        step = max(1, _SAMPLES // n_values)

        def run(first: int, n_blocks: int) -> None:
            # Read, not mapped: a file that shrinks meanwhile must not end the process.
            start, size = stored.offset + first * n_bytes, n_blocks * n_bytes
            try:
                data = np.fromfile(self.path, np.uint8, size, offset=start)
            except OSError as error:
                raise CheckpointError(f"{self.path} cannot be read any more: {error.strerror or error}.") from error
            if len(data) < size:
                raise CheckpointError(f"{self.path} was cut short while it was read. Download it again.")
            values = dequantize(data.reshape(1, -1), stored.kind)
            target[first * n_values : (first + n_blocks) * n_values] = values.reshape(-1)

        total = target.size // n_values
        for first in range(0, total, step):
            yield partial(run, first, min(step, total - first))


@dataclass(frozen=True)
class _Stored:
    """Where a tensor lies in the file."""

    kind: GGMLQuantizationType
    shape: tuple[int, ...]
    offset: int

    @classmethod
    def of(cls, tensor: ReaderTensor) -> _Stored:
        return cls(tensor.tensor_type, tuple(reversed(tensor.shape.tolist())), int(tensor.data_offset))


def _convert(file: GGUFFile, content: str, ignore: tuple[str, ...], with_tokenizer: bool) -> Checkpoint:
    key, config = converted.cache_key(content, ignore), _read_config(file, ignore)
    with ThreadPoolExecutor(thread_name_prefix="interp-gguf") as pool:
        tokenizer = pool.submit(_tokenizer, file.metadata) if with_tokenizer else None
        weights = dict(_our_weights(file.tensors(pool).items(), config, file, ignore))
    made = _result(tokenizer)
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}

    def again() -> Iterator[tuple[str, Tensor]]:
        # Dequantised anew, tensor by tensor: by now the model's owner may have edited the weights it was given.
        yield from _our_weights(((name, file.tensor(name)) for name in file.shapes), config, file, ignore)
        if not _still_holds(file.path, content):
            raise CheckpointError(f"{file.path} was changed while it was read.")

    def store() -> None:
        try:
            own = made if with_tokenizer else _tokenizer(file.metadata)
            converted.write_entry(key, config, shapes, again(), own)
        except CheckpointError:
            if _still_holds(file.path, content):
                raise  # otherwise what was loaded is gone from there, and with it the use of an entry

    return Checkpoint(config, weights, made, afterwards=lambda: converted.write_later(key, store))


def _read_config(file: GGUFFile, ignore: tuple[str, ...]) -> ModelConfig:
    """Everything that can be refused is refused here, before a tensor is dequantised."""
    source, metadata = str(file.path), file.metadata
    kind = metadata.get("general.type", "model")
    if kind != "model":
        raise UnsupportedModelError(f"{source} is of general.type {kind!r}, not a model. Give the base model's file.")
    architecture = metadata.get("general.architecture")
    family, dialect = family_for_gguf(architecture, source)
    start = f"{architecture}."
    own = {name.removeprefix(start): value for name, value in metadata.items() if name.startswith(start)}
    short = [name.removeprefix(start) for name in ignore]
    fields = Fields(own, f"{source} ({architecture}.*)", family.name, ignore=short)
    dialect.table.refuse_unknown(file.shapes, source, ignore)
    file.refuse_unknown_quantisations()
    hf = dialect.to_hf_config(fields, file)
    fields.finish()
    config = family.config_from_hf(hf, source=source)
    return replace(config, model_name=str(metadata.get("general.name") or file.path.stem))


def _our_weights(
    tensors: Iterable[tuple[str, Tensor]], config: ModelConfig, file: GGUFFile, ignore: tuple[str, ...]
) -> Iterator[tuple[str, Tensor]]:
    """GGUF names and orders -> the hub's -> ours, one tensor at a time."""
    family, dialect = family_for_gguf(file.metadata.get("general.architecture"), str(file.path))
    for name, tensor in tensors:
        if name in ignore:
            continue
        for hub_name, part in dialect.table.convert(name, tensor, config):
            yield from family.table.convert(hub_name, part, config)


def _tokenizer(metadata: Mapping[str, Any]) -> Any:
    from interp.text.gguf_vocab import tokenizer_from_gguf

    return tokenizer_from_gguf(metadata) if "tokenizer.ggml.model" in metadata else None


def _still_holds(path: Path, content: str) -> bool:
    try:
        return content_hash(path) == content
    except OSError:
        return False


def _result(future: Future[Any] | None) -> Any:
    return future.result() if future else None


def _check_start(path: Path) -> None:
    """Magic, version and byte order, read by hand so that each has its own sentence."""
    try:
        with open(path, "rb") as file:
            start = file.read(8)
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {error.strerror or error}. Check the path and its rights.") from error
    if start[:4] != _MAGIC:
        raise CheckpointError(
            f"{path} is not a GGUF file: it begins with {start[:4]!r}, not {_MAGIC!r}. Give a .gguf file or a folder."
        )
    if len(start) < 8:
        raise CheckpointError(f"{path} is cut short after {len(start)} bytes. Download it again.")
    (version,) = struct.unpack("<I", start[4:])
    if version & 0xFFFF == 0:
        raise UnsupportedModelError(f"{path} is a big-endian GGUF file. Convert it with gguf-convert-endian.")
    if version not in (2, 3):
        raise UnsupportedModelError(f"{path} is of GGUF version {version}; versions 2 and 3 are read. Convert it anew.")


def _plain(field: Any) -> Any:
    """A metadata value as str, int, float, bool or a list of them."""
    quick = field.parts[field.data[0]] if field.data else None
    return quick if isinstance(quick, list) else field.contents()


@cache
def _reader_class() -> Any:
    """`gguf.GGUFReader`, which makes six numpy views per array element, with arrays read in one go instead, and with
    sizes checked against the file before they are believed."""
    import numpy as np
    from gguf import GGUFReader
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType

    from interp.text.gguf_vocab import read_strings

    class QuickReader(GGUFReader):
        def _get_field_parts(self, orig_offs: int, raw_type: Any) -> tuple[int, list[Any], list[int], list[Any]]:
            if raw_type != GGUFValueType.ARRAY:
                return super()._get_field_parts(orig_offs, raw_type)
            buffer = memoryview(cast(Any, self.data))
            kind, count = struct.unpack_from("<IQ", buffer, orig_offs)
            start, kind = orig_offs + 12, GGUFValueType(kind)
            if count > len(self.data) - start:  # an element takes a byte at least
                raise ValueError(f"an array of {count} elements runs over the end of the file")
            if kind == GGUFValueType.STRING:
                values, end = read_strings(buffer, start, count)
            elif scalar := self.gguf_scalar_to_np.get(kind):
                end = start + count * np.dtype(scalar).itemsize
                values = self._get(start, scalar, count).tolist()
                if len(values) < count:
                    raise ValueError(f"an array of {count} elements runs over the end of the file")
            else:
                raise ValueError(f"an array of {kind.name} is not known")
            return end - orig_offs, [values], [0], [GGUFValueType.ARRAY, kind]

        def _build_tensors(self, start_offs: int, fields: list[Any]) -> None:
            for field in fields:
                _, name, _, dims, kind, offset = field.parts
                name, kind = bytes(name).decode(), int(kind[0])
                if kind not in {known.value for known in GGMLQuantizationType}:
                    raise UnsupportedModelError(
                        f"Tensor {name} is stored in quantisation type {kind}, which the gguf library does not know. "
                        "Update gguf, or use a file in a common type."
                    )
                n_values, n_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
                size = 1
                for dim in dims.tolist():
                    size *= dim
                if start_offs + int(offset[0]) + size // n_values * n_bytes > len(self.data):
                    raise ValueError(f"tensor {name} runs over the end of the file")
            super()._build_tensors(start_offs, fields)

    return QuickReader
