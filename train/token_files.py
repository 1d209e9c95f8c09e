"""Tokens of some samples as a file: what one model generated, and another one takes."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fourmill.manifests.errors import ConfigError
from fourmill.manifests.labels import Label
from fourmill.train.tensor_files import write_tensors

FILE = "tokens.safetensors"

_MOST_BYTES = 2**30


def write_tokens(
    file: Path, keys: Sequence[str], tokens: Mapping[str, Int64[Tensor, "batch length"]]
) -> None:
    """Write a file whole or not at all: a tensor a modality, and the keys as metadata."""
    tensors = {name: each.to("cpu", torch.int32).contiguous() for name, each in tokens.items()}
    aside = file.with_name(f".{file.name}.new")
    write_tensors(tensors, aside, {"keys": json.dumps(list(keys))})
    aside.replace(file)


def read_tokens(file: Path) -> tuple[list[str], dict[str, list[Label | None]]]:
    """What `write_tokens` wrote: keys, and by modality a row a sample.

    Raises:
        ConfigError: no such file, or not of this form.
    """
    if file.is_file() and file.stat().st_size > _MOST_BYTES:
        raise ConfigError(f"{file}: larger than {_MOST_BYTES >> 20} MiB: no file of tokens")
    try:
        with safe_open(file, framework="pt") as opened:
            arrays: dict[str, NDArray[Any]] = {
                name: opened.get_tensor(name).numpy()
                for name in opened.keys()  # noqa: SIM118
            }
            keys = json.loads((opened.metadata() or {}).get("keys", "[]"))
    except (OSError, SafetensorError, TypeError, ValueError) as error:
        raise ConfigError(f"{file}: not readable as safetensors: {error}") from error
    wrong = [name for name, each in arrays.items() if each.dtype.kind not in "iu"]
    if wrong:
        raise ConfigError(
            f"{file}: {wrong[0]} is {arrays[wrong[0]].dtype}, expected whole numbers: no tokens"
        )
    counts = {len(each) if each.ndim == 2 else -1 for each in arrays.values()}
    if len(counts) != 1 or -1 in counts:
        raise ConfigError(f"{file}: expected [samples, tokens] of each modality, as many samples")
    count = counts.pop()
    if not isinstance(keys, list) or len(keys) != count:
        keys = range(count)
    return list(map(str, keys)), {
        name: list(each.astype(np.int64)) for name, each in arrays.items()
    }
