"""A folder of real photographs with captions, and one Ray instance for all tests."""

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import skimage.data
from PIL import Image

from fourmill.manifests.dataset import Dataset
from fourmill.pipeline.ingest import ingest, plan_ingest
from fourmill.pipeline.sources.folder import FolderSource
from fourmill.pipeline.workers import ray_session

CAPTIONS = {
    "astronaut": "an astronaut in an orange suit in front of a flag",
    "chelsea": "a tabby cat looks into the camera",
    "coffee": "a cup of espresso on a wooden table",
    "rocket": "a rocket on its launch pad at night",
}


def png_bomb() -> bytes:
    """A PNG whose header promises 60,000 pixels a side."""
    buffer = io.BytesIO()
    Image.new("L", (4, 4)).save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    return bytes(data)


@pytest.fixture(scope="session")
def photographs() -> dict[str, Image.Image]:
    """Four photographs by name."""
    return {name: Image.fromarray(getattr(skimage.data, name)()) for name in CAPTIONS}


@pytest.fixture
def photo_folder(tmp_path: Path, photographs: dict[str, Image.Image]) -> Path:
    """Twenty-four parts of the photographs, as files with captions beside them."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, image in photographs.items():
        step = image.width // 8
        for number in range(6):
            part = image.crop((number * step, 0, number * step + 3 * step, image.height))
            part.thumbnail((200, 200))
            part.save(folder / f"{name}-{number}.jpg", quality=90)
            (folder / f"{name}-{number}.txt").write_text(f"{CAPTIONS[name]}, part {number}")
    return folder


@pytest.fixture
def make_root(cluster: None, photo_folder: Path, tmp_path: Path):
    """A function that ingests the folder into a new root and opens it."""

    def make(name: str = "root", samples_per_shard: int = 5) -> Dataset:
        plan = plan_ingest(
            [FolderSource(str(photo_folder))], samples_per_shard=samples_per_shard, held_out=0.2
        )
        dataset = Dataset.open(str(tmp_path / name), create=True)
        ingest(dataset, plan, on_progress=lambda done, failed: None)
        return dataset

    return make


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """Ray with two CPUs, in this process."""
    with ray_session(cpus=2):
        yield
