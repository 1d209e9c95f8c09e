"""What each kind of odd or broken picture gives, as docs/corpora.md says in a table."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.pipeline.conftest import png_bomb

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.labels import image_size
from fourmill.pipeline.ingest import ingest, plan_ingest
from fourmill.pipeline.sources.folder import FolderSource

pytestmark = pytest.mark.ray

PAGE = Path(__file__).parents[2] / "docs" / "corpora.md"
BEGIN = "| file | what it is | stored | seen by labelers |"


def _documented() -> dict[str, tuple[str, str]]:
    """(stored, seen) by file, from the page."""
    lines = PAGE.read_text().partition(BEGIN)[2].splitlines()[2:]
    rows = [line.strip("|").split("|") for line in lines[: lines.index("")]]
    cells = [[each.strip().strip("`") for each in row] for row in rows]
    return {name: (stored, seen) for name, _, stored, seen in cells}


@pytest.fixture
def corrupt_folder(tmp_path: Path, photographs: dict[str, Image.Image]) -> Path:
    folder = tmp_path / "corrupt"
    folder.mkdir()
    photo = photographs["coffee"].resize((120, 80))
    finely = {"quality": 95, "subsampling": 0}  # so that pixels are compared, not compression
    photo.save(folder / "good.jpg", **finely)
    photo.save(folder / "whole.jpg")
    (folder / "truncated.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:1500])
    (folder / "whole.jpg").unlink()
    (folder / "bomb.png").write_bytes(png_bomb())
    photo.save(folder / "wrong-suffix.png", "JPEG", **finely)
    (folder / "text.jpg").write_text("<html>not found</html>")
    (folder / "empty.jpg").write_bytes(b"")
    photo.convert("CMYK").save(folder / "cmyk.jpg")
    grey = np.asarray(photo.convert("L")).astype(np.uint16)
    Image.fromarray(grey * 257).save(folder / "sixteen-bit.png")
    frames = [photo, photo.rotate(90), photo.rotate(180)]
    frames[0].save(folder / "animated.gif", save_all=True, append_images=frames[1:])
    frames[0].save(folder / "animated.webp", save_all=True, append_images=frames[1:], quality=95)
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.save(folder / "rotated.jpg", exif=exif, **finely)
    photo.convert("P").save(folder / "palette.png")
    clear = photo.convert("RGBA")
    clear.putalpha(0)
    clear.save(folder / "transparent.png")
    photo.convert("CMYK").save(folder / "scan.tiff")
    photo.save(folder / "old.bmp")
    photo.save(folder / "no-caption.jpg", **finely)
    for file in list(folder.iterdir()):
        if file.stem != "no-caption":
            (folder / f"{file.name.rpartition('.')[0]}.txt").write_text(f"a caption of {file.stem}")
    return folder


@pytest.fixture
def corrupt(cluster: None, corrupt_folder: Path, tmp_path: Path) -> Dataset:
    plan = plan_ingest([FolderSource(str(corrupt_folder))], samples_per_shard=4)
    dataset = Dataset.open(str(tmp_path / "root"), create=True)
    ingest(dataset, plan, on_progress=lambda done, failed: None)
    return dataset


def test_each_gives_what_the_page_says_and_nothing_else_is_lost(corrupt, corrupt_folder):
    found: dict[str, tuple[str, str]] = {}
    colours: dict[str, np.ndarray] = {}
    samples = zip(
        corrupt.samples(["source", "rgb"]), corrupt.samples(["rgb"], decode=False), strict=True
    )
    for sample, raw in samples:
        file = sample["source"]["file"]
        same = raw["rgb"] == (corrupt_folder / file).read_bytes()
        height, width = image_size(raw["rgb"])
        assert sample["rgb"].shape == (height, width, 3)
        found[file] = ("as it is" if same else "as PNG", f"{width} x {height}")
        colours[file] = sample["rgb"].astype(int)
    refused = {each.key: each.message for each in corrupt.failures("rgb")}
    documented = _documented()
    assert set(found) | set(refused) == set(documented)
    for file, (stored, seen) in documented.items():
        if file in refused:
            assert stored == "refused"
            assert refused[file].startswith(seen.removesuffix("…")), file
        else:
            assert found[file] == (stored, seen), file
    good = colours["good.jpg"]
    for file in ("wrong-suffix.png", "no-caption.jpg", "old.bmp", "animated.webp"):
        assert np.abs(colours[file] - good).mean() < 5, file
    assert np.abs(colours["rotated.jpg"] - np.rot90(good, -1)).mean() < 5
    assert np.abs(colours["sixteen-bit.png"][..., 0] - good.mean(-1)).mean() < 20
    assert (colours["transparent.png"] == 255).all()
    without = [each for each in corrupt.samples(["source", "caption"]) if each["caption"] is None]
    assert [each["source"]["file"] for each in without] == ["no-caption.jpg"]
    assert [each.message for each in corrupt.failures("caption")] == [
        "the corpus has no caption for it"
    ]
    assert corrupt.verify(deep=True) == []
