"""The verb that shows samples: a sheet or a page."""

import tempfile
from pathlib import Path

from tyro.conf import Positional

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.modalities import Kind
from fourmill.pipeline.page import Picture, page
from fourmill.pipeline.progress import console

_ORDER = (
    "rgb", "caption", "depth", "normal", "canny_edge", "hed_edge", "semseg_coarse", "saliency",
    "det", "imagenet", "color_palette", "metadata",
)  # fmt: skip


def view(
    root: Positional[str],
    png: Path | None = None,
    html: Path | None = None,
    samples: int = 12,
    keys: tuple[str, ...] = (),
    modalities: tuple[str, ...] = (),
    split: str | None = None,
    shards: tuple[int, ...] = (),
    tokenizers: Path | None = None,
) -> None:
    """Look at samples with all their labels, side by side.

    Examples: `fourmill view data/mine --png sheet.png`, `fourmill view data/mine --html page.html`.

    Args:
        root: the dataset.
        png: write a sheet.
        html: write a page; `view.html` if neither is given.
        samples: how many, spread evenly.
        keys: these samples instead.
        modalities: these columns; all that can be seen by default.
        split: of this split only.
        shards: of these shards only.
        tokenizers: folder of tokenizers, to see tokens too.
    """
    from fourmill.pipeline.sheets import aligned_sheet, find_rows, pick_rows

    dataset = Dataset.open(root)
    for name in modalities:
        dataset.shard(name, 0)  # refuses a name that is not there
    columns = list(modalities) or visible(dataset)
    places = find_rows(dataset, keys) if keys else pick_rows(dataset, samples, split, shards)
    picture = aligned_sheet(dataset, places, columns, tokenizers)
    if png is not None:
        picture.save(png)
        console.print(f"wrote {png}", highlight=False)
    if html is not None or png is None:
        target = html or Path("view.html")
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "sheet.png"
            picture.save(file)
            part = Picture("Samples", ", ".join(columns), file)
            target.write_text(page(f"fourmill: {root}", f"snapshot {dataset.head.id}", [part]))
        console.print(f"wrote {target}", highlight=False)


def visible(dataset: Dataset) -> list[str]:
    """Modalities that say something to the eye, in the order of the demo's sheet."""
    hidden = {Kind.CROPS, Kind.TOKENS, Kind.VECTOR, Kind.SEQUENCE}
    names = [
        name for name, entry in dataset.modalities.items()
        if entry.definition.kind not in hidden and name != "source"
    ]  # fmt: skip
    known = [each for each in _ORDER if each in names]
    return known + sorted(set(names) - set(known))
