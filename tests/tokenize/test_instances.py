"""Instances as words: points, outlines and codes of masks, and the plane that they say."""

import math
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fourmill.manifests.errors import ConfigError, SampleError
from fourmill.manifests.labels import check_label
from fourmill.manifests.modalities import modality
from fourmill.manifests.run_lengths import masks_label, read_masks
from fourmill.tokenize import registry
from fourmill.tokenize.autoencoder import AutoencoderConfig, VQAutoencoder
from fourmill.tokenize.instances import SamInstancesTokenizer
from fourmill.tokenize.masks import MaskTokenizer, box_of, cut_mask, paint_mask
from fourmill.tokenize.vocabulary import EOS, number, spell

SIZE = (150, 200)  # height, width
WHOLE, FLIPPED = [0, 25, 150, 150, 0], [0, 25, 150, 150, 1]
SHAPE: dict[str, Any] = {
    "channels": 1, "size": 64, "patch": 16, "dim": 16, "heads": 1, "encoder_depth": 1,
    "decoder_depth": 1, "latent": 16, "codes": 1024, "out_conv": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def codec():
    torch.manual_seed(0)
    return MaskTokenizer(modality("sam_mask"), VQAutoencoder(AutoencoderConfig(**SHAPE)))


@pytest.fixture(scope="module")
def tokenizer(vocabulary, codec):
    return SamInstancesTokenizer(vocabulary, 290, codec)


def ellipses(*places, size=SIZE):
    """A plane of instances: each (row, column, half height, half width), the last on top."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    plane = np.zeros(size, np.uint16)
    for value, (row, column, high, wide) in enumerate(places, 1):
        plane[((rows - row) / high) ** 2 + ((columns - column) / wide) ** 2 <= 1] = value
    return plane


def three_things():
    return ellipses((75, 100, 60, 65), (60, 80, 20, 25), (120, 150, 20, 20))


def ids_of(tokenizer, label, crop=WHOLE, key="a"):
    row = tokenizer.tokenize([label], [np.array([crop])], [SIZE], [key])[0, 0].tolist()
    return row[: row.index(EOS)]


def spoken(tokenizer, ids) -> list[list[str]]:
    """A list of words for each point."""
    words = spell(ids, tokenizer.vocabulary).split("point ")
    assert words[0] == ""
    return [each.split() for each in words[1:]]


def test_every_point_says_what_lies_there(tokenizer, codec):
    label = three_things()
    plane = tokenizer.decode([])  # of the crop's size
    for crop in (WHOLE, FLIPPED):
        for key in ("a", "b", "c"):
            shown = label[:, 25:175][:, :: -1 if crop[4] else 1]
            phrases = spoken(tokenizer, ids_of(tokenizer, label, crop, key))
            assert len(phrases) == 7
            for phrase in phrases:
                row, column = (int(each[3:]) for each in phrase[:2])
                value = int(shown[int((row + 0.5) * 150 / 224), int((column + 0.5) * 150 / 224)])
                if value == 0:
                    assert phrase[2:] == ["none"]
                    continue
                assert phrase[2] == "polygon"
                left, top, right, bottom = box_of(shown == value)
                corners = np.array([int(each[3:]) for each in phrase[3:7]])
                assert [each[:2] for each in phrase[3:7]] == ["v0", "v1", "v2", "v3"]
                expected = np.array([left, top, right, bottom]) * 224 / 150
                np.testing.assert_allclose(corners, expected, atol=1)
                assert len(phrase) == 7 + 16
    assert plane.shape == (224, 224)


def test_codes_are_the_codecs_of_the_mask_in_its_box(vocabulary, codec):
    label = ellipses((75, 100, 40, 30))
    tokenizer = SamInstancesTokenizer(vocabulary, 290, codec, size=150, points=40)
    phrase = next(each for each in spoken(tokenizer, ids_of(tokenizer, label)) if len(each) > 3)
    mask = label[:, 25:175] == 1
    (codes,) = codec.encode(cut_mask(mask, box_of(mask), 64)[None])
    words = [f"v0={code}" if code < 512 else f"v1={code - 512}" for code in codes]
    assert phrase[2:] == ["polygon", "v0=45", "v1=35", "v2=106", "v3=116", *words]


def test_points_are_drawn_by_key_and_crop(tokenizer):
    label = three_things()
    found = {
        tuple(ids_of(tokenizer, label, crop, key)) for crop in (WHOLE, FLIPPED) for key in "abcde"
    }
    assert len(found) == 10
    whole = tokenizer.tokenize([label], [np.array([WHOLE, FLIPPED])], [SIZE], ["a"])
    assert whole.shape == (1, 2, 290)
    for row, crop in enumerate((WHOLE, FLIPPED)):
        ids = tokenizer.encode(label, "a", np.array(crop), SIZE)
        assert whole[0, row, : len(ids)].tolist() == ids


@pytest.fixture(scope="module")
def of_masks(vocabulary, codec):
    return SamInstancesTokenizer(vocabulary, 290, codec, definition=modality("sam_instance"))


def test_masks_that_do_not_overlap_say_what_their_plane_says(tokenizer, of_masks):
    plane = ellipses((50, 70, 40, 35), (60, 160, 20, 25), (120, 150, 20, 20))
    masks = masks_label([plane == value for value in (2, 1, 3)])
    crops = [np.array([WHOLE, FLIPPED, [10, 20, 101, 77, 1], [3, 7, 120, 133, 0]])]
    for key in "abcdefgh":
        np.testing.assert_array_equal(
            of_masks.tokenize([masks], crops, [SIZE], [key]),
            tokenizer.tokenize([plane], crops, [SIZE], [key]),
        )


def test_a_point_in_several_masks_has_a_polygon_of_each(vocabulary, of_masks, codec):
    whole = ellipses((75, 100, 70, 70)) > 0
    part = ellipses((75, 100, 40, 30)) > 0
    label = masks_label([part, whole])
    tokenizer = SamInstancesTokenizer(
        vocabulary, 2000, codec, size=150, points=40, definition=modality("sam_instance")
    )
    orders, counts = set(), set()
    for phrase in spoken(tokenizer, ids_of(tokenizer, label)):
        row, column = (int(each[3:]) for each in phrase[:2])
        shown = [mask[:, 25:175] for mask in (whole, part)]
        expected = {
            tuple(f"v{axis}={corner}" for axis, corner in enumerate(box_of(mask)))
            for mask in shown
            if mask[row, column]
        }
        starts = [index for index, word in enumerate(phrase) if word == "polygon"]
        found = [tuple(phrase[start + 1 : start + 5]) for start in starts]
        assert set(found) == expected
        assert len(found) == len(expected)
        assert len(phrase) == (3 if not expected else 2 + 21 * len(expected))
        counts.add(len(found))
        orders.add(tuple(found))
    assert counts == {0, 1, 2}
    assert len(orders) == 4  # nothing, the whole alone, and both in either order
    # what does not fit is left out whole
    ids = ids_of(of_masks, masks_label([whole] * 20))
    assert 289 - 21 < len(ids) <= 289
    lengths = [len(each) for each in spoken(of_masks, ids)]
    assert all(each == 3 or each % 21 == 2 for each in lengths)


def test_with_a_codec_that_loses_nothing_masks_come_back_whole(vocabulary):
    codec = _Faithful(modality("sam_mask"), VQAutoencoder(AutoencoderConfig(**SHAPE)))
    tokenizer = SamInstancesTokenizer(
        vocabulary, 8000, codec, points=150, definition=modality("sam_instance")
    )
    places = (112, 112, 90, 100), (80, 70, 30, 25), (150, 160, 25, 30)
    masks = [ellipses(place, size=(224, 224)) > 0 for place in places]
    crop = np.array([0, 0, 224, 224, 0])
    tokens = tokenizer.encode(masks_label(masks[::-1]), "a", crop, (224, 224))
    decoded = tokenizer.decode(tokens)
    check_label(modality("sam_instance"), decoded)
    found = [each.mask() for each in read_masks(decoded)]
    assert len(found) == 3
    for mask, again in zip(masks, found, strict=True):  # the largest box first
        assert (mask & again).sum() / (mask | again).sum() > 0.95


@given(st.lists(st.integers(0, 4_400), max_size=80))
@settings(deadline=None, max_examples=20)
def test_any_ids_decode_to_masks(of_masks, ids):
    words = [id for word in of_masks.words for id in of_masks.word(word)]
    mixed = [words[each % len(words)] if each % 7 == 0 else each for each in ids]
    (label,) = of_masks.detokenize(np.array([mixed], np.int64))
    check_label(modality("sam_instance"), label)


def test_tiny_instances_are_none_and_points_that_do_not_fit_are_left_out(vocabulary, codec):
    speck = np.zeros(SIZE, np.uint16)
    speck[::8, ::8] = np.arange(19 * 25).reshape(19, 25) + 1
    many = SamInstancesTokenizer(vocabulary, 290, codec, points=60)
    phrases = spoken(many, ids_of(many, speck))
    assert {tuple(each[2:]) for each in phrases} == {("none",)}
    full = np.ones(SIZE, np.uint16)
    assert len(spoken(many, ids_of(many, full))) == 289 // 24


plane_strategy = st.lists(
    st.tuples(st.integers(0, 223), st.integers(0, 223), st.integers(8, 90), st.integers(8, 90)),
    max_size=5,
)


@given(plane_strategy)
@settings(deadline=None, max_examples=40)
def test_a_mask_comes_back_to_where_it_was(places):
    plane = ellipses(*places, size=(224, 224))
    for value in np.unique(plane[plane > 0]):
        mask = plane == value
        box = box_of(mask)
        if (box[2] - box[0]) * (box[3] - box[1]) < 100:
            continue
        again = np.zeros((224, 224), np.uint16)
        paint_mask(again, cut_mask(mask, box, 64).astype(np.float32), box, 1)
        # what lies further from its edge than a code's pixel is the same
        reach = np.ones(
            [2 * math.ceil(side / 64) + 1 for side in (box[3] - box[1], box[2] - box[0])]
        )
        assert (again == 1)[cv2.erode(mask.astype(np.uint8), reach) > 0].all()
        assert (again == 0)[cv2.dilate(mask.astype(np.uint8), reach) == 0].all()


@given(plane_strategy, st.text(max_size=5))
@settings(deadline=None, max_examples=25)
def test_boxes_and_codes_come_back_and_what_was_decoded_is_a_label(tokenizer, places, key):
    plane = ellipses(*places, size=(224, 224))
    crop = np.array([[0, 0, 224, 224, 0]])
    tokens = tokenizer.tokenize([plane], [crop], [(224, 224)], [key])
    (decoded,) = tokenizer.detokenize(tokens[0])
    check_label(modality("instances"), decoded)
    row = tokens[0, 0].tolist()
    phrases = spoken(tokenizer, row[: row.index(EOS)])
    polygons = {tuple(each[3:]) for each in phrases if each[2] == "polygon"}
    for polygon in polygons:
        left, top, right, bottom = (int(each[3:]) for each in polygon[:4])
        values, counts = np.unique(plane[top:bottom, left:right], return_counts=True)
        assert any(
            value and box_of(plane == value) == (left, top, right, bottom) for value in values
        )
        assert counts.sum() == (bottom - top) * (right - left)
    assert decoded.max() <= len(polygons)


class _Faithful(MaskTokenizer):
    """A codec that loses nothing: it remembers the mask of each sequence of codes."""

    def encode(self, masks: Any) -> Any:
        self.kept = {tuple(ids): mask for ids, mask in zip(self._ids(masks), masks, strict=True)}
        return self._ids(masks)

    def decode(self, ids: Any) -> Any:
        return np.stack([self.kept[tuple(each)] for each in ids.tolist()]).astype(np.float32)

    def _ids(self, masks: Any) -> Any:
        return np.stack([[index % 1024] * 16 for index in range(len(masks))])


def test_with_a_codec_that_loses_nothing_the_instances_come_back(vocabulary):
    codec = _Faithful(modality("sam_mask"), VQAutoencoder(AutoencoderConfig(**SHAPE)))
    tokenizer = SamInstancesTokenizer(vocabulary, 4000, codec, points=150)
    plane = ellipses((112, 112, 90, 100), (80, 70, 30, 25), (150, 160, 25, 30), size=(224, 224))
    ids = tokenizer.encode(plane, "a", np.array([0, 0, 224, 224, 0]), (224, 224))
    decoded = tokenizer.decode(ids)
    assert decoded.max() == 3
    assert (decoded == plane).mean() > 0.97


@given(st.lists(st.integers(0, 4_400), max_size=80), st.integers(0, 999))
@settings(deadline=None)
def test_any_ids_decode_to_a_label(tokenizer, ids, bin):
    words = [id for word in tokenizer.words for id in tokenizer.word(word)]
    mixed = [words[each % len(words)] if each % 7 == 0 else each for each in ids]
    corners = [number(axis, (bin * (axis + 3)) % 1000) for axis in range(4)]
    polygon = [*tokenizer.word("polygon"), *corners, *[number(bin % 2, bin % 600)] * 16]
    for row in (ids, mixed, polygon + mixed, mixed + polygon):
        (label,) = tokenizer.detokenize(np.array([row], np.int64))
        check_label(modality("instances"), label)


def test_what_lies_beyond_the_crop_is_cut_off(tokenizer):
    ids = [*tokenizer.word("polygon"), *(number(a, b) for a, b in enumerate((10, 200, 999, 999)))]
    plane = tokenizer.decode([*ids, *[number(0, 5)] * 16])
    assert plane.shape == (224, 224)
    assert not plane[:200].any()
    assert not plane[:, :10].any()
    outside = [*tokenizer.word("polygon"), *(number(a, b) for a, b in enumerate((300, 0, 400, 9)))]
    assert not tokenizer.decode([*outside, *[number(0, 5)] * 16]).any()


def test_a_folder_keeps_vocabulary_and_codec(tokenizer, codec, vocabulary, tmp_path):
    tokenizer.save(tmp_path / "a")
    loaded = registry.load(tmp_path / "a")
    assert isinstance(loaded, SamInstancesTokenizer)
    loaded.save(tmp_path / "b")
    digests = {registry.weights_sha256(tmp_path / each) for each in "ab"}
    assert len(digests) == 1
    assert ids_of(loaded, three_things()) == ids_of(tokenizer, three_things())
    codecs = {"sam_instance": codec}
    folders = registry.save_text_tokenizers(
        tmp_path, vocabulary, ["sam_instance", "human_poses"], codecs=codecs
    )
    definition = registry.load(folders["sam_instance"]).token_modality
    assert (definition.name, definition.token_of) == ("tok_sam_instance", "sam_instance")
    assert (definition.max_tokens, definition.input_size) == (290, 0)
    label = masks_label([three_things() == 1])
    again = registry.load(folders["sam_instance"])
    direct = SamInstancesTokenizer(vocabulary, 290, codec, definition=modality("sam_instance"))
    assert ids_of(again, label) == ids_of(direct, label)
    planes = tmp_path / "planes"
    folders = registry.save_text_tokenizers(
        planes, vocabulary, ["instances"], codecs={"instances": codec}
    )
    assert folders["instances"] == planes / registry.text_token_name("instances")
    of_planes = registry.load(folders["instances"])
    assert of_planes.token_modality.token_of == "instances"
    assert of_planes.spec.max_tokens == 290
    assert ids_of(of_planes, three_things()) == ids_of(tokenizer, three_things())


def test_masks_alone_become_sixteen_codes_and_come_back(codec, tmp_path):
    codec.save(tmp_path / "tok_sam_mask")
    loaded = registry.load(tmp_path / "tok_sam_mask")
    masks = [255 * (ellipses((20, 30, 15, 20), size=(40, 60)) == 1).astype(np.uint8)] * 17
    crops = [np.array([[0, 0, 40, 60, 0]])] * 17
    tokens = loaded.tokenize(masks, crops, [(40, 60)] * 17, list("abcdefghijklmnopq"))
    assert (tokens.shape, str(tokens.dtype)) == ((17, 16), "int16")
    assert (tokens == tokens[0]).all()
    np.testing.assert_array_equal(
        codec.tokenize(masks[:1], crops[:1], [(40, 60)], ["a"]), tokens[:1]
    )
    inputs = torch.zeros(16, 1, 64, 64)
    inputs[0, 0] = torch.from_numpy(cut_mask(masks[0] > 0, (0, 0, 60, 40), 64))
    with torch.inference_mode():
        expected = codec.network.tokenize(inputs)[0].flatten()
        decoded = codec.network.decode_tokens(expected.view(1, 4, 4)).sigmoid()[0, 0]
    np.testing.assert_array_equal(tokens[0], expected)
    (found, *_) = loaded.detokenize(tokens)
    check_label(modality("sam_mask"), found)
    np.testing.assert_allclose(found, 255 * decoded, atol=0.51)
    assert loaded.token_modality.masking is None
    with pytest.raises(ConfigError, match="expected 0 to 1023"):
        loaded.detokenize(np.full((1, 16), 1024))


def test_what_is_wrong_is_told(vocabulary, codec, tokenizer, tmp_path):
    with pytest.raises(ConfigError, match="give it a tokenizer of masks"):
        registry.save_text_tokenizers(tmp_path, vocabulary, ["sam_instance"])
    with pytest.raises(ConfigError, match="both become tok_sam_instance"):
        registry.save_text_tokenizers(tmp_path, vocabulary, ["sam_instance", "instances"])
    with pytest.raises(ConfigError, match="did you mean 'sam_instance'"):
        registry.save_text_tokenizers(tmp_path, vocabulary, [], codecs={"sam_instances": codec})
    with pytest.raises(ConfigError, match="points in crops of 1000 pixels"):
        SamInstancesTokenizer(vocabulary, 290, codec, size=1000)
    large = VQAutoencoder(AutoencoderConfig(**SHAPE | {"codes": 2048}))
    with pytest.raises(
        ConfigError, match="16 tokens with 2048 codes, expected a tokenizer of masks"
    ):
        SamInstancesTokenizer(vocabulary, 290, MaskTokenizer(modality("sam_mask"), large))
    with pytest.raises(ConfigError, match="tokenizers of masks are for one channel"):
        MaskTokenizer(modality("rgb"), codec.network)
    with pytest.raises(SampleError, match="found uint8, expected uint16"):
        ids_of(tokenizer, three_things().astype(np.uint8))
