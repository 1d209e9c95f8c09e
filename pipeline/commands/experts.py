"""The verb that shows the catalogue of labelers."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from fourmill.labelers import registry
from fourmill.labelers.base import LabelerSpec
from fourmill.manifests.errors import ConfigError, SampleError
from fourmill.manifests.labels import decode_image
from fourmill.manifests.modalities import modality
from fourmill.pipeline.cli import write_json


def labelers(
    what: Positional[str] = "list",
    name: Positional[str] = "",
    image: Path | None = None,
    png: Path | None = None,
    json: bool = False,
) -> None:
    """The catalogue: `list`, `show NAME`, or `check NAME --image PHOTO` to run one on a picture.

    Examples: `fourmill labelers`, `fourmill labelers show depth`,
    `fourmill labelers check depth --image photo.jpg --png depth.png`.

    Args:
        what: list, show or check.
        name: the labeler to show or check.
        image: the picture to check it on.
        png: where `check` writes what it saw.
        json: print JSON.
    """
    if what == "list":
        _list(json)
    elif what == "show":
        _show(registry.spec(name), json)
    elif what == "check":
        _check(name, image, png or Path(f"{name}.png"))
    else:
        raise ConfigError(f"fourmill labelers {what}: expected list, show or check")


def _list(json: bool) -> None:
    specs = [registry.spec(each) for each in registry.names()]
    if json:
        write_json([_as_dict(each) for each in specs])
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("labeler", "makes", "reads", "what", "licence"):
        table.add_column(column)
    for each in specs:
        table.add_row(
            each.name, ", ".join(each.writes), ", ".join(each.reads), each.summary, each.licence
        )
    Console(highlight=False).print(table)


def _show(spec: LabelerSpec, json: bool) -> None:
    if json:
        write_json(_as_dict(spec))
        return
    for key, value in _as_dict(spec).items():
        sys.stdout.write(f"{key:<10} {value}\n")


def _as_dict(spec: LabelerSpec) -> dict[str, Any]:
    missing = [each for each in spec.requires if importlib.util.find_spec(each) is None]
    return {
        "name": spec.name, "version": spec.version, "summary": spec.summary, "reads": spec.reads,
        "optional": spec.optional, "writes": spec.writes, "transient": spec.transient,
        "licence": spec.licence, "citation": spec.citation, "weights": spec.weights,
        "missing": missing,
    }  # fmt: skip


def _check(name: str, image: Path | None, png: Path) -> None:
    """Run a labeler, and those that it needs, on one picture, and draw what they saw."""
    from fourmill.manifests.render import render, sheet

    registry.spec(name)
    if image is None:
        raise ConfigError(f"fourmill labelers check {name}: give a picture with --image FILE")
    try:
        rgb = decode_image(image.read_bytes(), max_side=512)
    except OSError as error:
        raise ConfigError(f"{image}: {error.strerror or error}") from error
    sample: dict[str, Any] = {"key": image.stem, "rgb": rgb}
    for each in _chain(name, set(sample)):
        labeler = registry.get(each)
        labeler.load("cpu")
        optional = dict.fromkeys(labeler.spec.optional)
        result = labeler.label([optional | sample])[0]
        if isinstance(result, SampleError):
            raise result
        sample |= result
    shown = ["rgb", *registry.spec(name).writes]
    cells = [render(modality(each), sample[each], 256, rgb) for each in shown]
    sheet([cells], shown, title=f"{name} on {image.name}").save(png)
    sys.stdout.write(f"wrote {png}\n")


def _chain(name: str, known: set[str]) -> list[str]:
    """The labelers that make what this one reads, and then it."""
    spec = registry.spec(name)
    ordered: list[str] = []
    for each in spec.reads:
        if each in known or each in spec.optional:
            continue
        makers = [n for n in registry.names() if each in registry.spec(n).writes]
        if not makers:
            raise ConfigError(f"{name} reads {each}, which cannot be made from a picture alone")
        ordered += [n for n in _chain(makers[0], known) if n not in ordered]
    return [*ordered, name]
