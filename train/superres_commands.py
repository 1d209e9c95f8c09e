"""The verb of super-resolution."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from tyro.conf import Positional

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError
from fourmill.manifests.labels import Label
from fourmill.train.progress import say, write_json

if TYPE_CHECKING:
    from torch import Tensor

    from fourmill.train.given import Given
    from fourmill.train.sampler import Sampler

_PANEL_SIDE = 224


def superres(
    model: Positional[str],
    image: Path | None = None,
    root: str | None = None,
    key: tuple[str, ...] = (),
    tokens: Path | None = None,
    text: str | None = None,
    inputs: tuple[str, ...] = (),
    targets: tuple[str, ...] = ("rgb",),
    out: Path = Path("superres"),
    steps: int = 8,
    temperature: float = 1.0,
    top_p: float = 0.8,
    guidance: float = 2.0,
    seed: int = 0,
    tokenizers: Path | None = None,
    device: str = "auto",
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    json: bool = False,
) -> None:
    """Larger pictures of what is given small: a photograph, samples, or what was generated before.

    Writes a picture a sample and target, `panel.png`, and the tokens as `tokens.safetensors`, which
    `--tokens` reads, as those that `fourmill generate --out` writes. Examples:
    `fourmill superres demo/work/builtin/run-super-resolution --image photo.jpg`,
    `fourmill superres demo/work/builtin/run-super-resolution --root demo/work/builtin/dataset
    --key chelsea coffee --inputs rgb depth --targets rgb depth`,
    `fourmill superres EPFL-VILAB/4M-7-SR_L_CC12M --tokens generated/tokens.safetensors`.

    Args:
        model: a run, its YAML file, a safetensors file, or a hub's id, of a model that was trained
            for it.
        image: a photograph; its centre is made small first.
        root: a dataset, whose samples are named by `--key`.
        key: of these samples.
        tokens: of a generation: the file that `generate --out` leaves beside what it made.
        text: a caption, beside what else is given.
        inputs: what is taken of the samples; by default all small grids of tokens that there are.
        targets: what is made large, in this order; each is seen by the next.
        out: folder for the pictures.
        steps: in which a grid is filled.
        temperature: 0 takes the likeliest tokens.
        top_p: only the likeliest tokens that together have this probability.
        guidance: how closely what is given is followed; 1 is as learned.
        seed: of the draws.
        tokenizers: folder of the tokenizers; by default those of the run. One of the small size is
            taken for the large one too, where that has none.
        device: cpu, cuda, cuda:1; auto: a GPU if there is one.
        dtype: of activations.
        json: print what was done as JSON.
    """
    from fourmill.train.given import read_text
    from fourmill.train.superres import load_superres, resolutions, small_input, usual_plan
    from fourmill.train.token_files import FILE, write_tokens

    if sum(each is not None for each in (image, root, tokens)) != 1:
        raise ConfigError("give one of --image, --root and --tokens")
    sampler = load_superres(model, tokenizers, device, dtype)
    plan = [
        replace(each, steps=steps, temperature=temperature, top_p=top_p, guidance=guidance)
        for each in usual_plan(sampler.domains, targets)
    ]
    given, photos = _given(sampler, image, root, key, tokens, inputs)
    labels = dict(given.labels)
    if text is not None:
        labels[small_input(sampler.domains, "caption")] = [read_text(text)] * len(given.keys)
    conditions = sampler.conditions(len(given.keys), labels, given.rows)
    made = sampler.generate(conditions, plan, seed)
    size = resolutions(sampler.domains)
    out.mkdir(parents=True, exist_ok=True)
    decoded = {name: sampler.decode(name, each) for name, each in made.items()}
    files = _write_pictures(sampler, given.keys, decoded, size.high, out)
    _draw(sampler, given.keys, labels, photos, decoded, out / "panel.png")
    write_tokens(out / FILE, given.keys, {**_known(conditions.tokens), **made})
    if json:
        report = {"from": list(labels), "targets": list(made), "low": size.low, "high": size.high}
        write_json(report | {"keys": given.keys, "files": [str(each) for each in files]})
        return
    say(f"{size.low} → {size.high} pixels from {', '.join(labels)}: wrote {len(files)} to {out}")


def _given(
    sampler: "Sampler",
    image: Path | None,
    root: str | None,
    keys: Sequence[str],
    tokens: Path | None,
    inputs: Sequence[str],
) -> tuple["Given", list[NDArray[np.uint8] | None]]:
    """What is small, and photographs of it where there are any."""
    from fourmill.train.given import Given, available, find_photos, find_samples, read_photo
    from fourmill.train.superres import small_input, small_inputs
    from fourmill.train.token_files import read_tokens

    if image is not None:
        photo = read_photo(image)
        name = small_input(sampler.domains, "rgb")
        if name not in sampler.tokenizers:
            name = sampler.resolve("rgb")  # pixels, then
        return Given([_as_key(image.stem)], [0], {name: [photo]}), [photo]
    if tokens is not None:
        names, rows = read_tokens(tokens)
        names = [_as_key(name) for name in names]
        if len(set(names)) < len(names):
            names = [f"{number:04d}-{name}" for number, name in enumerate(names)]
        domains = sampler.domains
        takes = [name for name in domains.inputs if name not in domains.targets]
        known = {name: each for name, each in rows.items() if name in takes}
        if not known:
            raise ConfigError(
                f"{tokens}: has {', '.join(rows)}, none of which this model takes: expected some "
                f"of {', '.join(takes)}"
            )
        return Given(names, list(range(len(names))), known), [None] * len(names)
    assert root is not None
    dataset = Dataset.open(root)
    if not keys:
        raise ConfigError("--root: name samples of it with --key")
    small = small_inputs(sampler.domains)
    chosen = [small_input(sampler.domains, name) for name in inputs]
    chosen = chosen or available(sampler, dataset, small)
    if not chosen:
        raise ConfigError(f"{root}: has none of {', '.join(small)}, nor what they are made of")
    return find_samples(sampler, dataset, chosen, keys), find_photos(dataset, keys)


def _as_key(name: str) -> str:
    """A name that files can have."""
    return re.sub(r"[^0-9A-Za-z_-]", "_", name)[:80] or "_"


def _known(tokens: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
    """Without what has gaps: a file of tokens says what is there."""
    return {name: each for name, each in tokens.items() if bool((each >= 0).all())}


def _write_pictures(
    sampler: "Sampler",
    keys: Sequence[str],
    decoded: Mapping[str, Sequence[Label]],
    size: int,
    out: Path,
) -> list[Path]:
    """A picture a sample and target, as large as the target is."""
    from PIL import Image

    from fourmill.manifests.modalities import Kind
    from fourmill.train.panels import picture

    files = []
    for name, labels in decoded.items():
        if name not in sampler.tokenizers:
            say(f"{name}: no tokenizer decodes it; its tokens are in tokens.safetensors alone")
            continue
        is_image = sampler.stored(name).kind is Kind.IMAGE
        for key, label in zip(keys, labels, strict=True):
            array = np.asarray(label) if is_image else picture(sampler, name, label, size)
            files.append(out / f"{key}-{sampler.stored(name).name}.png")
            Image.fromarray(array).save(files[-1])
    return files


def _draw(
    sampler: "Sampler",
    keys: Sequence[str],
    given: Mapping[str, Sequence[Label | None]],
    photos: Sequence[NDArray[np.uint8] | None],
    decoded: Mapping[str, Sequence[Label]],
    file: Path,
) -> None:
    """A row a sample: what was given, what was made of it, and the photograph."""
    from fourmill.manifests.modalities import modality
    from fourmill.manifests.render import render, sheet
    from fourmill.train.panels import picture

    rows = []
    for place in range(len(keys)):
        row = [picture(sampler, name, labels[place], _PANEL_SIDE) for name, labels in given.items()]
        row += [
            picture(sampler, name, labels[place], _PANEL_SIDE) for name, labels in decoded.items()
        ]
        rows.append([*row, render(modality("rgb"), photos[place], _PANEL_SIDE)])
    columns = [*(f"given: {name}" for name in given), *decoded, "the photograph"]
    sheet(rows, columns, keys, "What is given small, and what is made large of it").save(file)
