"""The verb that shows the catalogue of labelers."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from tyro.conf import Positional

from fourmill.labelers import registry
from fourmill.labelers.base import LabelerSpec
from fourmill.manifests.errors import ConfigError, SampleError
from fourmill.manifests.labels import decode_image
from fourmill.manifests.modalities import Kind, Modality, modality, register
from fourmill.pipeline.cli import write_json


def labelers(
    what: Positional[str] = "list",
    name: Positional[str] = "",
    image: Path | None = None,
    png: Path | None = None,
    folder: Path | None = None,
    json: bool = False,
) -> None:
    """The catalogue: `list`, `show NAME`, `check NAME --image PHOTO`, or `new NAME` to add one.

    Examples: `fourmill labelers`, `fourmill labelers show depth`,
    `fourmill labelers check depth --image photo.jpg --png depth.png`,
    `fourmill labelers new sharpness`.

    Args:
        what: list, show, check or new.
        name: the labeler to show, to check or to make.
        image: the picture to check it on.
        png: where `check` writes what it saw.
        folder: where `new` writes the file; as a rule among the experts of this package.
        json: print JSON.
    """
    if what == "list":
        _list(json)
    elif what == "show":
        _show(registry.spec(name), json)
    elif what == "check":
        _check(name, image, png or Path(f"{name}.png"))
    elif what == "new":
        _new(name, folder)
    else:
        raise ConfigError(f"fourmill labelers {what}: expected list, show, check or new")


def _list(json: bool) -> None:
    specs = [registry.spec(each) for each in registry.names()]
    if json:
        write_json([_as_dict(each) for each in specs])
        return
    out = Console(highlight=False, soft_wrap=True)
    for each in specs:
        facts = [
            ", ".join(each.writes) + (" (not by default)" if each.alternative else ""),
            f"{each.weights_mb} MB" if each.weights_mb else "",
            f"needs {', '.join(missing)}" if (missing := _missing(each)) else "",
        ]
        out.print(f"[bold]{each.name}[/bold]  {escape(' · '.join(filter(None, facts)))}")
        out.print(f"    {each.summary}; {each.licence}", markup=False)


def _show(spec: LabelerSpec, json: bool) -> None:
    if json:
        write_json(_as_dict(spec))
        return
    for key, value in _as_dict(spec).items():
        shown = ", ".join(value) if isinstance(value, tuple | list) else value
        sys.stdout.write(f"{key:<11} {shown}\n")


def _as_dict(spec: LabelerSpec) -> dict[str, Any]:
    return {
        "name": spec.name, "version": spec.version, "summary": spec.summary, "reads": spec.reads,
        "optional": spec.optional, "writes": spec.writes, "transient": spec.transient,
        "alternative": spec.alternative, "licence": spec.licence, "citation": spec.citation,
        "weights": spec.weights_source, "weights_mb": spec.weights_mb, "missing": _missing(spec),
    }  # fmt: skip


def _missing(spec: LabelerSpec) -> list[str]:
    """Packages that it needs and that are not installed."""
    return [each for each in spec.requires if importlib.util.find_spec(each) is None]


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
    for each in registry.with_makers([name], sample):
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


def _new(name: str, folder: Path | None) -> None:
    """A file with an expert that works, to be filled with a better one."""
    import fourmill.labelers.experts as experts
    from fourmill.labelers import template

    words = name.split("-")
    if not all(each.isidentifier() and each.islower() for each in words):
        raise ConfigError(
            f"fourmill labelers new {name}: expected a name of small letters, digits and dashes"
        )
    if name in registry.names():
        raise ConfigError(f"fourmill labelers new {name}: there is a labeler of this name")
    module = "_".join(words)
    register(Modality(module, Kind.EDGE, module, "png", channels=1))  # refuses what cannot be
    file = (folder or Path(next(iter(experts.__path__)))) / f"{module}.py"
    text = Path(template.__file__).read_text()
    text = text.replace('name="template"', f'name="{name}"')
    text = text.replace("Template", "".join(map(str.capitalize, words)))
    try:
        with file.open("x") as stream:
            stream.write(text.replace("template", module))
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}") from error
    sys.stdout.write(f"wrote {file}; docs/add-a-labeler.md says what comes next\n")
