"""What is left out of a corpus, and that the same is left out every time."""

import io

import numpy as np
import pytest
from PIL import Image

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import SampleError
from fourmill.manifests.labels import image_format, image_size
from fourmill.pipeline.admission import Treatment, admit, scaled_down
from fourmill.pipeline.config import FilterConfig
from fourmill.pipeline.ingest import ingest, plan_ingest
from fourmill.pipeline.sources.base import RawSample
from fourmill.pipeline.sources.folder import FolderSource
from fourmill.pipeline.twins import fingerprint, near_duplicates


def _bytes(image: Image.Image, name: str = "JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def _bits(image: Image.Image) -> int:
    return fingerprint(np.asarray(image.convert("RGB")))


@pytest.mark.parametrize(
    ("filters", "source", "reason"),
    [
        ({"min_side": 101}, {}, "200 x 100 pixels, the short side has less than 101"),
        ({"max_aspect": 1.9}, {}, "200 x 100 pixels, longer than 1.9 to 1"),
        ({"min_scores": {"clip": 0.3}}, {"clip": "0.2"}, "clip is 0.2, less than 0.3"),
        ({"max_scores": {"nsfw": 0.3}}, {"nsfw": "0.4"}, "nsfw is 0.4, more than 0.3"),
        ({"max_scores": {"nsfw": 0.3}}, {}, "the corpus gives it no nsfw"),
    ],
)
def test_what_is_not_wanted_is_refused_with_its_reason(photographs, filters, source, reason):
    sample = RawSample(_bytes(photographs["coffee"].resize((200, 100))), source=source)
    with pytest.raises(SampleError, match=reason) as refusal:
        admit(sample, Treatment(filters=FilterConfig(**filters)))
    assert refusal.value.stage == "filter"


def test_what_is_wanted_is_kept_as_it_is(photographs):
    image = _bytes(photographs["coffee"].resize((200, 100)))
    filters = FilterConfig(min_side=100, max_aspect=2, min_scores={"clip": 0.3})
    sample = RawSample(image, source={"clip": "0.3", "licence": "CC0"})
    admitted, _ = admit(sample, Treatment(max_side=200, licence="other", filters=filters))
    assert admitted == sample


@pytest.mark.parametrize(("name", "kept"), [("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "jpg")])
def test_larger_pictures_are_scaled_down_to_their_long_side(photographs, name, kept):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = _bytes(photographs["coffee"].resize((400, 200)), name, exif=exif)
    small = scaled_down(image, 100)
    assert (image_size(small), image_format(small)) == ((100, 50), kept)
    assert scaled_down(image, 100) == small


def test_the_hash_survives_scaling_and_compression_and_tells_pictures_apart(photographs):
    for name, photo in photographs.items():
        weak = Image.open(io.BytesIO(_bytes(photo.resize((150, 110)), quality=30)))
        assert (_bits(photo) ^ _bits(weak)).bit_count() <= 2, name
    different = [_bits(each) for each in photographs.values()]
    assert min((a ^ b).bit_count() for a in different for b in different if a != b) > 15


def test_the_hash_of_any_size_is_64_bits_of_the_left_right_order():
    ramp = np.repeat(np.arange(16, dtype=np.uint8)[None, :, None], 3, axis=2)
    assert fingerprint(ramp) == 2**64 - 1
    assert fingerprint(ramp[:, ::-1]) == 0
    assert 0 <= fingerprint(np.zeros((1, 1, 3), np.uint8)) < 2**64


@pytest.mark.parametrize("most", [0, 1, 2, 3, 4])
def test_near_duplicates_are_those_that_comparing_all_with_all_finds(most):
    rng = np.random.default_rng(most)
    hashes = rng.integers(0, 2**64, 60, dtype=np.uint64)
    for place in range(20, 60):  # most are some flipped bits away from one before
        flips = rng.choice(64, rng.integers(0, 7), replace=False)
        hashes[place] = hashes[rng.integers(0, place)] ^ np.uint64(sum(1 << int(b) for b in flips))
    expected: dict[int, int] = {}
    for place, bits in enumerate(hashes.tolist()):
        for earlier, other in enumerate(hashes[:place].tolist()):
            if earlier not in expected and (bits ^ other).bit_count() <= most:
                expected[place] = earlier
                break
    assert near_duplicates(hashes, most) == expected


@pytest.mark.ray
def test_the_first_of_near_duplicates_stays_whatever_the_shards_and_workers(
    cluster, photographs, tmp_path
):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, photo in photographs.items():
        photo.save(folder / f"{name}.png")
        photo.resize((200, 150)).save(folder / f"{name}-small.jpg", quality=60)
    Image.new("L", (4, 4)).save(folder / "tiny.png")
    treatment = Treatment(filters=FilterConfig(duplicates=2, min_side=10))
    heads = []
    for name, at_once in (("one", 1), ("two", None)):
        plan = plan_ingest(
            [FolderSource(str(folder))], samples_per_shard=2, treatment=treatment,
            shards_at_once=at_once,
        )  # fmt: skip
        dataset = Dataset.open(str(tmp_path / name), create=True)
        heads.append(ingest(dataset, plan, on_progress=lambda done, failed: None).id)
        files = {each["source"]["file"] for each in dataset.samples(["source"])}
        assert {each.split(".")[0].removesuffix("-small") for each in files} == set(photographs)
        assert len(files) == len(photographs)
        reasons = [each.message for each in dataset.failures("rgb")]
        assert sum("a near duplicate of folder " in each for each in reasons) == len(photographs)
        assert not list((tmp_path / name).glob(".fingerprints/*"))
    assert heads[0] == heads[1]
