"""Small public sets in their original layouts: real photographs, values like the sets' own."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image
from scipy.io import savemat

SCAN = "val/indoors/scene_00019/scan_00183/00019_00183_indoors"
STREET = "val/outdoor/scene_00022/scan_00193/00022_00193_outdoor"


def jpeg(image: Image.Image) -> bytes:
    """The photograph as a JPEG file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def put(path: Path, data: bytes | str) -> Path:
    """Write a file, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def npy(array: np.ndarray) -> bytes:
    """The array as `np.save` writes it."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def make_diode(root: Path, frames: Mapping[str, tuple[Image.Image, dict[str, np.ndarray]]]) -> Path:
    """`<stem>.png`, and `<stem>_<ending>.npy` of each array."""
    for stem, (image, arrays) in frames.items():
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        put(root / f"{stem}.png", buffer.getvalue())
        for ending, array in arrays.items():
            put(root / f"{stem}_{ending}.npy", npy(array))
    return root


def make_nyu(
    root: Path,
    images: Sequence[np.ndarray],
    depths: Sequence[np.ndarray],
    words: Sequence[np.ndarray],
    instances: Sequence[np.ndarray],
    names: Sequence[str],
) -> Path:
    """The labelled part as MATLAB 7.3 writes it: columns first, compressed, behind its own text."""
    root.mkdir(parents=True, exist_ok=True)
    path = root / "nyu_depth_v2_labeled.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, parts, dtype in (
            ("images", images, "u1"), ("depths", depths, "f4"), ("labels", words, "u2"),
            ("instances", instances, "u1"),
        ):  # fmt: skip
            array = np.stack([part.T for part in parts]).astype(dtype)
            chunks = (1, *array.shape[1:])
            file.create_dataset(name, data=array, chunks=chunks, compression="gzip")
        cells = file.create_dataset("names", (1, len(names)), h5py.ref_dtype)
        for row, name in enumerate(names):
            letters = np.array([[ord(letter)] for letter in name], np.uint16)
            cells[0, row] = file.create_dataset(f"#refs#/{row}", data=letters).ref
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512))
    return root


def break_nyu(root: Path, name: str, place: int) -> None:
    """Overwrite the compressed bytes of one part of an array."""
    path = root / "nyu_depth_v2_labeled.mat"
    with h5py.File(path) as file:
        chunk = file[name].id.get_chunk_info_by_coord((place, *[0] * (file[name].ndim - 1)))
    with path.open("r+b") as stream:
        stream.seek(512 + chunk.byte_offset)  # counted from behind the text
        stream.write(b"\xff" * min(chunk.size, 64))


def add_nyu_files(
    root: Path, train: Sequence[int], test: Sequence[int], classes: Sequence[int]
) -> None:
    """The official split, by numbers from 1, and the class of each word."""
    splits = {"trainNdxs": np.array(train)[:, None], "testNdxs": np.array(test)[:, None]}
    savemat(root / "splits.mat", splits)
    savemat(root / "classMapping40.mat", {"mapClass": np.array([classes], np.uint8)})


def make_coco(
    root: Path,
    photographs: Mapping[int, Image.Image],
    things: Sequence[Mapping[str, Any]],
    captions: Mapping[int, Sequence[str]],
    segments: Mapping[int, tuple[np.ndarray, Mapping[int, int]]],
    categories: Mapping[int, str],
) -> Path:
    """The val split with its three files of annotations.

    Args:
        photographs: by id.
        things: annotations with `image_id`, `category_id`, `bbox`, `segmentation`, `iscrowd`.
        segments: of each id the map of segment numbers, and the category of each.
    """
    images = []
    for number, image in photographs.items():
        put(root / "val2017" / f"{number:012d}.jpg", jpeg(image))
        images.append({
            "id": number, "file_name": f"{number:012d}.jpg", "height": image.height,
            "width": image.width, "license": 4, "coco_url": f"http://x.org/{number}.jpg",
        })  # fmt: skip
    shared = {
        "images": images,
        "licenses": [{"id": 4, "name": "Attribution License", "url": "http://x.org/by"}],
        "categories": [{"id": each, "name": name} for each, name in categories.items()],
    }
    numbered = [{"id": 900 + row, **each} for row, each in enumerate(things)]
    told = [
        {"id": row, "image_id": number, "caption": text}
        for number, texts in captions.items()
        for row, text in enumerate(texts)
    ]
    maps = []
    for number, (numbers, classes) in segments.items():
        colours = np.stack([numbers >> shift & 255 for shift in (0, 8, 16)], -1).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(colours).save(buffer, "PNG")
        put(root / "annotations/panoptic_val2017" / f"{number:012d}.png", buffer.getvalue())
        infos = [{"id": each, "category_id": category} for each, category in classes.items()]
        maps.append({"image_id": number, "file_name": f"{number:012d}.png", "segments_info": infos})
    for kind, annotations in (("instances", numbered), ("captions", told), ("panoptic", maps)):
        text = json.dumps({**shared, "annotations": annotations})
        put(root / "annotations" / f"{kind}_val2017.json", text)
    return root


def make_devkit(root: Path, wnids: Sequence[str], truth: Sequence[int]) -> None:
    """The devkit's list of classes, numbered from 1 in the order given, and the class of each
    photograph of val."""
    kinds = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object)]
    synsets = np.empty((len(wnids), 1), kinds)
    for row, wnid in enumerate(wnids):
        synsets[row, 0] = (np.array([[row + 1]], np.uint16), wnid, "a word, another")
    root.mkdir(parents=True, exist_ok=True)
    savemat(root / "meta.mat", {"synsets": synsets})
    put(root / "ILSVRC2012_validation_ground_truth.txt", "".join(f"{each}\n" for each in truth))
