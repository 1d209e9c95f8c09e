"""The public sets that models are judged by come in from their own layouts, value by value."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
from PIL import Image
from pycocotools import mask as official
from tests.pipeline import public_sets as sets

from fourmill.manifests.class_names import ADE20K, COCO_PANOPTIC, NYU40
from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError, SampleError, SourceError
from fourmill.pipeline.cli import main
from fourmill.pipeline.ingest import plan_ingest
from fourmill.pipeline.sources.registry import open_source

pytestmark = pytest.mark.ray

Samples = dict[str, dict[str, Any]]


@pytest.fixture
def ingested(cluster: None, tmp_path: Path, capsys: Any) -> Callable[..., tuple[Dataset, Samples]]:
    """`fourmill ingest SOURCE`: the dataset, and its samples by the name of their file."""

    def ingest(source: str, failed: int = 0) -> tuple[Dataset, Samples]:
        root = str(tmp_path / "root")
        assert main(["ingest", source, root, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["failed"] == failed
        dataset = Dataset.open(root)
        assert dataset.verify(deep=True) == []
        samples = dataset.samples(sorted(dataset.modalities))
        return dataset, {each["source"]["file"]: each for each in samples}

    return ingest


def failures(dataset: Dataset, name: str) -> dict[str, str]:
    return {each.key: each.message for each in dataset.failures(name)}


def test_depth_and_normals_of_diode_come_in_metres_and_in_our_axes(ingested, tmp_path, photographs):
    size = (128, 96)
    photos = {name: each.convert("RGB").resize(size) for name, each in photographs.items()}
    room = np.linspace(0.6, 11.3, 96 * 128, dtype=np.float32).reshape(96, 128, 1)
    street = np.geomspace(2, 180, 96 * 128).astype(np.float32).reshape(96, 128, 1)
    street[:4] = [[np.nan], *[[1e9]] * 127]  # the sky
    known = np.ones((96, 128), np.float32)
    known[:10, :20] = 0
    vectors = np.zeros((96, 128, 3), np.float32)
    vectors[60:] = (0, 1, 0)  # a floor
    vectors[20:60, :64] = (1, 0, 0)  # the wall to the left
    vectors[20:60, 64:] = (0.6, 0, 0.8)
    labels = {"depth": room, "depth_mask": known, "normal": vectors}
    root = sets.make_diode(tmp_path / "diode", {
        f"{sets.SCAN}_000_010": (photos["chelsea"], labels),
        f"{sets.SCAN}_000_020": (photos["coffee"], labels),
        f"{sets.SCAN}_000_030": (photos["rocket"], labels),
        f"{sets.STREET}_010_000": (photos["astronaut"], labels | {"depth": street}),
    })  # fmt: skip
    torn = root / f"{sets.SCAN}_000_020_depth.npy"
    torn.write_bytes(torn.read_bytes()[:5000])
    (root / f"{sets.SCAN}_000_030.png").write_bytes(b"no picture")
    dataset, samples = ingested(f"diode:{root}", failed=1)
    assert dataset.head.splits.keys() == {"val"}
    room_sample = samples[f"{sets.SCAN}_000_010.png"]
    np.testing.assert_array_equal(room_sample["rgb"], np.asarray(photos["chelsea"]))
    assert room_sample["source"]["scene"] == "indoors"
    depth = room_sample["truth_depth"]
    assert np.abs(depth - room[..., 0])[known > 0].max() <= 0.003 + 1e-5
    np.testing.assert_array_equal(depth == 0, known == 0)
    far = samples[f"{sets.STREET}_010_000.png"]["truth_depth"]
    assert np.abs(far - street[..., 0])[10:].max() <= 0.003 + 1e-4
    assert not far[:4].any()
    normal = room_sample["truth_normal"].astype(float) / 127.5 - 1
    unknown = ~vectors.any(axis=-1)
    np.testing.assert_array_equal((room_sample["truth_normal"] == 128).all(axis=-1), unknown)
    assert np.abs(normal - vectors)[~unknown].max() < 0.005
    assert samples[f"{sets.SCAN}_000_020.png"]["truth_depth"] is None
    assert samples[f"{sets.SCAN}_000_020.png"]["truth_normal"] is not None
    (message,) = failures(dataset, "truth_depth").values()
    assert "_000_020.png" in message
    assert "the header says" in message


def test_one_part_of_diode_can_be_read_alone(tmp_path, photographs):
    labels = {"depth": np.ones((96, 128, 1), np.float32), "depth_mask": np.ones((96, 128))}
    frame = (photographs["coffee"].resize((128, 96)), labels)
    root = sets.make_diode(tmp_path, {f"{sets.SCAN}_0_0": frame, f"{sets.STREET}_0_0": frame})
    source = open_source(f"diode:{root}?split=val&part=outdoor")
    assert [each.name for each in source.listing()] == [f"{sets.STREET}_0_0.png"]
    assert source.label_modalities == ["truth_depth"]  # normals are another download


NAMES = ["book", "bottle", "wall", "unicycle"]


def _room(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth, words and instances of a wall with two books and a bottle before it."""
    words = np.full((48, 64), 3)
    words[:, :2] = 0
    instances = np.ones((48, 64))
    words[10:20, 10:20], words[10:20, 30:40], words[30:40, 50:56] = 1, 1, 2
    instances[10:20, 30:40] = 2
    depth = np.linspace(0.7, 9.5, 48 * 64).reshape(48, 64) + 0.01 * seed
    return depth, words, instances


def test_nyu_is_read_from_its_one_file_with_its_splits_and_both_kinds_of_classes(
    ingested, tmp_path, photographs
):
    images = [np.asarray(photographs["coffee"].crop((k, 0, k + 64, 48))) for k in range(5)]
    depths, words, instances = zip(*[_room(seed) for seed in range(5)], strict=True)
    root = sets.make_nyu(tmp_path / "nyu", images, depths, words, instances, NAMES)
    sets.add_nyu_files(root, [1, 4, 5], [2, 3], [23, 40, 1, 40])
    sets.break_nyu(root, "images", 3)
    sets.break_nyu(root, "depths", 4)
    dataset, samples = ingested(f"nyu:{root}", failed=1)
    assert "0004" in next(iter(failures(dataset, "rgb").values()))
    assert set(dataset.head.splits) == {"train", "test"}
    splits = {
        split: {each["source"]["file"] for each in dataset.samples(["source"], split=split)}
        for split in ("train", "test")
    }
    assert splits == {"train": {"0001", "0005"}, "test": {"0002", "0003"}}
    sample = samples["0003"]
    np.testing.assert_array_equal(sample["rgb"], images[2])
    assert np.abs(sample["truth_depth"] - depths[2]).max() <= 0.00026
    expected = np.array([255, NYU40.index("books"), 39, NYU40.index("wall")])[words[2]]
    np.testing.assert_array_equal(sample["truth_semseg_nyu40"], expected)
    things = sample["truth_det"]["instances"]
    assert [each["class_name"] for each in things] == ["book", "book", "bottle", "wall"]
    assert things[1]["boxes"] == [30 / 64, 10 / 48, 40 / 64, 20 / 48]
    np.testing.assert_array_equal(
        sample["truth_instances"],
        np.where(words[2] == 1, instances[2], words[2] + 1) * (words[2] > 0),
    )
    assert samples["0005"]["truth_depth"] is None
    assert samples["0005"]["truth_semseg_nyu40"] is not None
    assert "depths" in next(iter(failures(dataset, "truth_depth").values()))


def test_nyu_without_its_other_files_has_no_split_and_no_forty_classes(tmp_path, photographs):
    depth, words, instances = _room(0)
    image = np.asarray(photographs["coffee"].crop((0, 0, 64, 48)))
    parts = [[each] * 230 for each in (image, depth, words, instances)]
    root = sets.make_nyu(tmp_path, *parts, NAMES)
    source = open_source(f"nyu:{root}/nyu_depth_v2_labeled.mat")
    items = source.listing()
    assert {each.split for each in items} == {"train"}
    assert len({each.group for each in items}) == 15  # sixteen that lie beside each other
    # whatever a shard may have, this much is held in memory
    assert [len(each) for each in plan_ingest([source], held_out=0.0).shards] == [200, 30]
    assert "truth_semseg_nyu40" not in source.label_modalities
    with pytest.raises(SourceError, match=r"no splits\.mat"):
        open_source(f"nyu:{root}?split=test").listing()


CATEGORIES = {1: "person", 17: "cat", 47: "cup", 189: "table-merged", 199: "wall-other-merged"}
EAR = [20.5, 10.0, 60.25, 12.5, 55.0, 70.75, 30.0, 44.0, 12.0, 66.0]
CUP = [40.0, 30.0, 90.0, 30.0, 90.0, 80.0, 40.0, 80.0]


def _coco(root: Path, photographs: Mapping[str, Image.Image]) -> Path:
    photos = {
        139: photographs["chelsea"].resize((120, 90)),
        285: photographs["coffee"].resize((120, 80)),
        632: photographs["rocket"].resize((100, 90)),
    }
    crowd = {"counts": [0, 120 * 90], "size": [90, 120]}
    things = [
        {"image_id": 139, "category_id": 17, "bbox": [12.0, 10.0, 48.25, 60.75], "iscrowd": 0,
         "area": 1500.0, "segmentation": [EAR]},
        {"image_id": 139, "category_id": 1, "bbox": [0, 0, 120, 90], "iscrowd": 1,
         "area": 10800.0, "segmentation": crowd},
        {"image_id": 139, "category_id": 47, "bbox": [40.0, 30.0, 90.0, 50.0], "iscrowd": 0,
         "area": 2500.0, "segmentation": [CUP]},
    ]  # fmt: skip
    captions = {
        139: ["A cat  looks up.", "A tabby cat.\n", "Eyes.", "A cat indoors", "Whiskers"],
        285: ["A cup of coffee."],
    }
    numbers = np.full((90, 120), 7_000_123)
    numbers[:40] = 0
    numbers[50:, 60:] = 300
    segments = {139: (numbers, {7_000_123: 17, 300: 199})}
    return sets.make_coco(root, photos, things, captions, segments, CATEGORIES)


# numpy has changed since pycocotools was compiled
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_coco_brings_boxes_outlines_all_captions_and_panoptic_classes(
    ingested, tmp_path, photographs
):
    root = _coco(tmp_path / "coco", photographs)
    broken = root / "val2017" / f"{632:012d}.jpg"
    broken.write_bytes(broken.read_bytes()[:900])
    dataset, samples = ingested(f"coco:{root}?split=val", failed=1)
    cat, coffee = (samples[f"val2017/{number:012d}.jpg"] for number in (139, 285))
    assert cat["caption"] == "A cat looks up."
    assert cat["truth_captions"] == [
        "A cat looks up.", "A tabby cat.", "Eyes.", "A cat indoors", "Whiskers"
    ]  # fmt: skip
    assert coffee["truth_captions"] == ["A cup of coffee."]
    assert cat["source"]["licence"] == "Attribution License"
    assert cat["source"]["url"] == "http://x.org/139.jpg"
    boxes = cat["truth_det"]
    assert [each["class_name"] for each in boxes["instances"]] == ["cat", "cup"]
    np.testing.assert_allclose(
        boxes["instances"][0]["boxes"], [0.1, 10 / 90, 60.25 / 120, 70.75 / 90], atol=1e-6
    )
    assert boxes["instances"][1]["boxes"][2] == 1.0  # cut at the picture's edge
    assert [each["class_name"] for each in boxes["crowds"]] == ["person"]
    assert coffee["truth_det"] == {"instances": []}
    # the cat's outline is in front of the cup's, which is larger
    runs = official.merge(official.frPyObjects([EAR], 90, 120))
    outline = official.decode(runs).astype(bool)
    found = cat["truth_instances"] == 1
    assert (found & outline).sum() / (found | outline).sum() > 0.95
    assert (cat["truth_instances"] == 2).sum() == 50 * 50 - (found[30:80, 40:90]).sum()
    assert not coffee["truth_instances"].any()
    classes = np.full((90, 120), COCO_PANOPTIC.index("cat"))
    classes[:40] = 255
    classes[50:, 60:] = COCO_PANOPTIC.index("wall-other-merged")
    np.testing.assert_array_equal(cat["truth_semseg_coco"], classes)
    assert coffee["truth_semseg_coco"] is None
    assert failures(dataset, "truth_semseg_coco") == {}  # nobody said that there is one


def test_what_is_odd_in_one_annotation_of_coco_costs_that_label_alone(tmp_path, photographs):
    root = _coco(tmp_path, photographs)
    file = root / "annotations/instances_val2017.json"
    loaded = json.loads(file.read_text())
    loaded["annotations"][0] |= {"segmentation": {"counts": "abc", "size": [90, 120]}}
    loaded["annotations"][2] |= {"image_id": 285, "bbox": None}
    file.write_text(json.dumps(loaded))
    (root / "annotations/panoptic_val2017" / f"{139:012d}.png").unlink()
    source = open_source(f"coco:{root}")
    cat, coffee, _ = [source.read(each).labels for each in source.listing()]
    assert "no polygon" in cat["truth_instances"].reason
    assert "is not there" in cat["truth_semseg_coco"].reason
    assert len(cat["truth_det"]["instances"]) == 1
    assert isinstance(coffee["truth_det"], SampleError)
    assert coffee["truth_captions"] == ["A cup of coffee."]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text[:200], "not a file of annotations"),
        (lambda text: text.replace("000000000139.jpg", "../../secret.jpg"), "no name of a file"),
        (lambda text: text.replace('"cat"', '"lion"'), "'lion' is no category of COCO 2017"),
    ],
    ids=["torn", "leads elsewhere", "of another set"],
)
def test_annotations_that_are_not_cocos_are_refused_by_name(tmp_path, photographs, change, said):
    file = _coco(tmp_path, photographs) / "annotations/instances_val2017.json"
    file.write_text(change(file.read_text()))
    with pytest.raises(SourceError, match=said) as caught:
        open_source(f"coco:{tmp_path}").listing()
    assert "instances_val2017.json" in str(caught.value)


def test_other_annotations_of_coco_make_another_dataset(tmp_path, photographs):
    source = open_source(f"coco:{_coco(tmp_path, photographs)}")
    source.listing()
    before = dict(source.params)
    file = tmp_path / "annotations/captions_val2017.json"
    file.write_text(file.read_text().replace("tabby", "striped"))
    source.listing()
    assert source.params != before


def test_the_classes_of_ade20k_count_from_zero_and_other_is_unknown(
    ingested, tmp_path, photographs
):
    root = tmp_path / "ADEChallengeData2016"
    numbers = np.zeros((60, 90), np.uint8)
    numbers[20:], numbers[40:] = 1, 150
    for split, name in (("training", "train"), ("validation", "val")):
        for count, photo in enumerate(("coffee", "chelsea", "rocket"), start=1):
            stem = f"{split}/ADE_{name}_{count:08d}"
            image = sets.jpeg(photographs[photo].resize((90, 60)))
            sets.put(root / f"images/{stem}.jpg", image)
            path = sets.put(root / f"annotations/{stem}.png", b"")
            Image.fromarray(numbers).save(path)
    Image.fromarray(numbers * 0 + 200).save(root / "annotations/validation/ADE_val_00000002.png")
    cut = root / "images/validation/ADE_val_00000003.jpg"
    cut.write_bytes(cut.read_bytes()[:700])
    dataset, samples = ingested(f"ade20k:{root}", failed=1)
    assert set(dataset.head.splits) == {"train", "val"}
    assert len(samples) == 5
    classes = samples["images/validation/ADE_val_00000001.jpg"]["truth_semseg_ade20k"]
    assert np.unique(classes[:20]).tolist() == [255]
    definition = dataset.modalities["truth_semseg_ade20k"].definition
    assert definition.classes == ADE20K
    assert [definition.classes[classes[row, 0]] for row in (20, 40)] == ["wall", "flag"]
    assert samples["images/validation/ADE_val_00000002.jpg"]["truth_semseg_ade20k"] is None
    (message,) = failures(dataset, "truth_semseg_ade20k").values()
    assert "ADE_val_00000002" in message
    assert "found class 199" in message


TENCH, CUP_WNID = "n01440764", "n07930864"


def test_imagenet_in_folders_of_classes_brings_one_class_a_photograph(
    ingested, tmp_path, photographs
):
    root = tmp_path / "imagenet"
    image = sets.jpeg(photographs["coffee"].resize((60, 40)))
    for place in (
        f"train/{TENCH}/{TENCH}_10026", f"val/{CUP_WNID}/ILSVRC2012_val_00000001",
        "val/n99999999/ILSVRC2012_val_00000002",
    ):  # fmt: skip
        sets.put(root / f"{place}.JPEG", image)
    sets.put(root / f"val/{TENCH}/ILSVRC2012_val_00000003.JPEG", image[:500])
    dataset, samples = ingested(f"imagenet:{root}", failed=1)
    assert set(dataset.head.splits) == {"train", "val"}
    (tench,) = samples[f"train/{TENCH}/{TENCH}_10026.JPEG"]["truth_imagenet"]
    assert tench == {"class_name": "tench", "index": 0, "wnid": TENCH, "score": 1.0}
    (cup,) = samples[f"val/{CUP_WNID}/ILSVRC2012_val_00000001.JPEG"]["truth_imagenet"]
    assert (cup["class_name"], cup["index"]) == ("cup", 968)
    assert samples["val/n99999999/ILSVRC2012_val_00000002.JPEG"]["truth_imagenet"] is None
    (message,) = failures(dataset, "truth_imagenet").values()
    assert "'n99999999' is none of the thousand classes" in message


def test_no_two_classes_of_imagenet_have_one_name(tmp_path, photographs):
    image = sets.jpeg(photographs["coffee"].resize((60, 40)))
    for wnid in ("n02012849", "n03126707"):  # the bird, and the machine
        sets.put(tmp_path / f"val/{wnid}/ILSVRC2012_val_{wnid[1:]}.JPEG", image)
    source = open_source(f"imagenet:{tmp_path}")
    labels = [source.read(each).labels["truth_imagenet"][0] for each in source.listing()]
    assert [each["class_name"] for each in labels] == ["crane (n02012849)", "crane (n03126707)"]
    assert [each["index"] for each in labels] == [134, 517]


@pytest.mark.parametrize("told_by", ["csv", "devkit"])
def test_imagenet_with_val_in_one_folder_is_told_its_classes_by_either_file(
    tmp_path, photographs, told_by
):
    below = "ILSVRC/Data/CLS-LOC/" if told_by == "csv" else ""
    image = sets.jpeg(photographs["coffee"].resize((60, 40)))
    for number in (1, 2):
        sets.put(tmp_path / f"{below}val/ILSVRC2012_val_{number:08d}.JPEG", image)
    if told_by == "csv":
        sets.put(tmp_path / "LOC_synset_mapping.txt", f"{TENCH} tench, Tinca\n{CUP_WNID} mug\n")
        sets.put(tmp_path / "LOC_val_solution.csv", "ImageId,PredictionString\n"
                 f"ILSVRC2012_val_00000002,{TENCH} 85 1 499 272 \n"
                 f"ILSVRC2012_val_00000001,{CUP_WNID} 1 2 3 4 {CUP_WNID} 5 6 7 8 \n")  # fmt: skip
    else:
        folder = tmp_path / "ILSVRC2012_devkit_t12/data"
        sets.make_devkit(folder, ["n02119789", CUP_WNID, TENCH], [2, 3])
    source = open_source(f"imagenet:{tmp_path}")
    labels = {each.name[-9:-5]: source.read(each).labels for each in source.listing()}
    wnids = {name: each["truth_imagenet"][0]["wnid"] for name, each in labels.items()}
    assert wnids == {"0001": CUP_WNID, "0002": TENCH}
    assert labels["0001"]["truth_imagenet"][0]["class_name"] == (
        "mug" if told_by == "csv" else "cup"
    )


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("ade20k", r"no images/training/ nor images/validation/.*annotations/validation/ADE_val_"),
        ("coco", r"no train2017/ nor val2017/.*instances_val2017\.json"),
        ("diode", r"no train/ nor val/ nor test/.*_depth_mask\.npy"),
        ("imagenet", r"no train/ nor val/.*val/n01440764"),
        ("nyu", r"no nyu_depth_v2_labeled\.mat there.*splits\.mat"),
    ],
)
def test_a_folder_of_another_layout_is_told_how_the_set_lies(tmp_path, photographs, source, said):
    sets.put(tmp_path / "pictures/a.jpg", sets.jpeg(photographs["coffee"]))
    with pytest.raises(SourceError, match=said):
        open_source(f"{source}:{tmp_path}").listing()


def test_flat_imagenet_without_its_answers_says_which_file_is_missing(tmp_path, photographs):
    image = sets.jpeg(photographs["coffee"].resize((60, 40)))
    sets.put(tmp_path / "val/ILSVRC2012_val_00000001.JPEG", image)
    with pytest.raises(SourceError, match=r"neither LOC_val_solution\.csv nor ILSVRC2012_val"):
        open_source(f"imagenet:{tmp_path}").listing()
    sets.put(tmp_path / "ILSVRC2012_validation_ground_truth.txt", "1\n")
    with pytest.raises(SourceError, match=r"meta\.mat of the devkit"):
        open_source(f"imagenet:{tmp_path}").listing()


def test_an_hdf5_file_that_leads_out_of_itself_or_holds_something_else_is_refused(tmp_path):
    import h5py

    image, (depth, words, instances) = skimage.data.coffee()[:48, :64], _room(0)
    root = sets.make_nyu(tmp_path / "nyu", [image], [depth], [words], [instances], NAMES)
    path = root / "nyu_depth_v2_labeled.mat"
    shutil.copy(path, tmp_path / "other.mat")
    with h5py.File(path, "r+") as file:
        del file["depths"]
        file["depths"] = h5py.ExternalLink(str(tmp_path / "other.mat"), "depths")
    with pytest.raises(SourceError, match="no array 'depths'"):
        open_source(f"nyu:{root}").listing()
    with h5py.File(path, "r+") as file:
        del file["depths"]
        file["depths"] = np.zeros((1, 64, 48))
    with pytest.raises(SourceError, match="depths is float64 of 3 axes, expected float32 of 3"):
        open_source(f"nyu:{root}").listing()
    with h5py.File(path, "r+") as file:
        del file["depths"]  # what was never written takes no place
        file.create_dataset("depths", (10**9, 64, 48), "f4", chunks=(1, 64, 48))
    with pytest.raises(SourceError, match="says 1,000,000,000 pictures, expected at most 100,000"):
        open_source(f"nyu:{root}").listing()
    path.write_bytes(b"MATLAB 5.0 MAT-file")
    with pytest.raises(SourceError, match=r"not a MATLAB file of version 7\.3"):
        open_source(f"nyu:{root}").listing()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("coco:/data?split=vla", "did you mean 'val'"),
        ("diode:/data?prat=indoors", "did you mean 'part'"),
        ("nyu:?split=test", "no path"),
    ],
)
def test_options_of_a_set_are_checked_before_anything_is_read(source, said):
    with pytest.raises(ConfigError, match=said):
        open_source(source)
