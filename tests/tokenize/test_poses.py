"""People's bodies as words: the reference's strings, the way back, and what a mirror does."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fourmill.manifests.errors import ConfigError, SampleError
from fourmill.manifests.labels import check_label
from fourmill.manifests.modalities import Masking, modality
from fourmill.tokenize import registry
from fourmill.tokenize.bottleneck import BottleneckAutoencoder, BottleneckConfig
from fourmill.tokenize.coded import NUM_CODES
from fourmill.tokenize.poses import SCALES, PosesTokenizer, mirror_body
from fourmill.tokenize.vectors import VectorTokenizer
from fourmill.tokenize.vocabulary import (
    EOS,
    UNK,
    Vocabulary,
    number,
    spell,
    train_vocabulary,
)

SIZE = (300, 400)  # height, width
UPRIGHT, FLIPPED = [0, 0, 300, 400, 0], [0, 0, 300, 400, 1]
SHAPE = {"dim": 16, "encoder_depth": 1, "decoder_depth": 1, "latent": 64, "books": 8}


@pytest.fixture(scope="module")
def codec():
    torch.manual_seed(0)
    network = BottleneckAutoencoder(BottleneckConfig(channels=207, codes=NUM_CODES, **SHAPE))
    return VectorTokenizer(modality("body_pose"), network)


@pytest.fixture(scope="module")
def plain(vocabulary):
    return PosesTokenizer(vocabulary, 275)


@pytest.fixture(scope="module")
def coded(vocabulary, codec):
    return PosesTokenizer(vocabulary, 275, codec)


def rotations(count, seed=0):
    """Rotation matrices, as HMR 2.0 gives them."""
    found, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(count, 3, 3)))
    return found * np.sign(np.linalg.det(found))[:, None, None]


def people(*boxes, seed=0, **more) -> Any:
    rng = np.random.default_rng(seed)
    count = len(boxes)
    return {
        "bbox_xyxy": [list(map(float, box)) for box in boxes],
        "pred_cam": rng.uniform(-0.9, 0.9, (count, 3)).tolist(),
        "pred_smpl_params": {
            "global_orient": rotations(count, seed)[:, None].tolist(),
            "betas": rng.uniform(-2.9, 2.9, (count, 10)).tolist(),
        },
        "pose_tokenized": rng.integers(0, NUM_CODES, (count, 8)).tolist(),
    } | more


def with_bodies(label, seed=0):
    count = len(label["bbox_xyxy"])
    bodies = rotations(23 * count, seed + 1).reshape(count, 23, 3, 3).tolist()
    smpl = label["pred_smpl_params"] | {"body_pose": bodies}
    return label | {"pred_smpl_params": smpl, "pose_tokenized": [None] * count}


def ids_of(tokenizer, label, crop=UPRIGHT, key="a"):
    row = tokenizer.tokenize([label], [np.array([crop])], [SIZE], [key])[0, 0].tolist()
    return row[: row.index(EOS)]


def there_and_back(tokenizer, label, crop=UPRIGHT) -> Any:
    tokens = tokenizer.tokenize([label], [np.array([crop])], [SIZE], ["a"])[0]
    return tokenizer.detokenize(tokens)[0]


def groups_of(text) -> dict[str, list[str]]:
    words: dict[str, list[str]] = {}
    for each in text.split():
        if "=" not in each:
            words[each] = []
        else:
            words[list(words)[-1]].append(each)
    return words


def test_a_person_is_the_string_that_the_reference_makes(plain, vocabulary):
    label = people((40, 30, 200, 270))
    label["pose_tokenized"] = [[0, 511, 512, 1023, 7, 600, 300, 999]]
    label["pred_smpl_params"]["global_orient"] = [[[[1, 0, -1], [0.5, -0.5, 0], [0, 0, 1]]]]
    label["pred_smpl_params"]["betas"] = [[0, 1, -1, 2.9, -2.9, 9, -9, 0.1, 0.2, 0.3]]
    label["pred_cam"] = [[0.9, -0.02, 25]]
    ids = ids_of(plain, label)
    found = groups_of(spell(ids, vocabulary))
    assert len(ids) == 39
    assert found == {
        "human": ["v0=100", "v1=100", "v2=500", "v3=899"],
        "pose": ["v0=0", "v0=511", "v1=0", "v1=511", "v0=7", "v1=88", "v0=300", "v1=487"],
        "global": [
            f"v0={round(499.5 * x + 499.5)}" for x in (1, 0, -1, 0.5, -0.5, 0, 0, 0, 1)
        ],
        # the reference does not clip the shape, and its text has no word for what is beyond
        "shape": [
            f"v0={min(max(round(166.5 * x + 499.5), 0), 999)}"
            for x in (0, 1, -1, 2.9, -2.9, 9, -9, 0.1, 0.2, 0.3)
        ],
        "camera": [f"v0={round(49.95 * x + 49.95)}" for x in (0.9, -0.02, 19)],
    }  # fmt: skip


def test_the_key_draws_the_order_of_a_persons_groups(plain, vocabulary):
    orders = {
        tuple(groups_of(spell(ids_of(plain, people((0, 0, 9, 9)), key=str(key)), vocabulary)))
        for key in range(60)
    }
    assert {order[0] for order in orders} == {"human"}
    assert len(orders) > 15  # of 24


def test_seven_people_fit_and_the_largest_are_kept_in_their_order(plain):
    boxes = [(0, 0, 50 + 10 * index, 60) for index in range(9)]
    label = people(*boxes)
    found = there_and_back(plain, label)
    assert len(found["bbox_xyxy"]) == 7
    assert found["pose_tokenized"] == label["pose_tokenized"][2:]


@pytest.mark.parametrize("label", [{}, [], people()])
def test_an_image_without_people_says_so(plain, label, vocabulary):
    assert spell(ids_of(plain, label), vocabulary) == "none"
    assert there_and_back(plain, label) == {}


def test_whom_the_crop_does_not_show_is_left_out(plain):
    label = people((0, 0, 50, 50), (250, 100, 350, 290))
    right = [0, 200, 300, 200, 0]
    found = there_and_back(plain, label, right)
    assert found["pose_tokenized"] == label["pose_tokenized"][1:]
    np.testing.assert_allclose(found["bbox_xyxy"], [[0.25, 1 / 3, 0.75, 290 / 300]], atol=0.5 / 999)


@given(
    st.lists(st.floats(-1, 1), min_size=9, max_size=9),
    st.lists(st.floats(-1, 19), min_size=3, max_size=3),
    st.lists(st.floats(-2.999, 2.999), min_size=10, max_size=10),
    st.lists(st.integers(0, NUM_CODES - 1), min_size=8, max_size=8),
    st.tuples(st.floats(0, 390), st.floats(0, 290), st.floats(5, 400), st.floats(5, 300)),
)
@settings(deadline=None)
def test_all_of_a_person_comes_back_within_half_a_bin(plain, turn, camera, shape, codes, box):
    left, top, width, height = box
    label = {
        "bbox_xyxy": [[left, top, left + width, top + height]],
        "pred_cam": [camera],
        "pred_smpl_params": {"global_orient": [[turn]], "betas": [shape]},
        "pose_tokenized": [codes],
    }
    found = there_and_back(plain, label)
    check_label(modality("human_poses"), found)
    assert found["pose_tokenized"] == [codes]
    smpl = found["pred_smpl_params"]
    for name, values, wanted in (
        ("global", np.ravel(smpl["global_orient"]), turn),
        ("shape", smpl["betas"][0], shape),
        ("camera", found["pred_cam"][0], camera),
    ):
        limit = 0.5 / SCALES[name].factor + 1e-9
        np.testing.assert_allclose(values, wanted, rtol=0, atol=limit)
    corners = np.array([left / 400, top / 300, (left + width) / 400, (top + height) / 300])
    np.testing.assert_allclose(
        found["bbox_xyxy"][0], corners.clip(0, 1), rtol=0, atol=0.5 / 999 + 1e-9
    )


@given(st.integers(0, 2**20), st.integers(1, 9))
@settings(deadline=None, max_examples=30)
def test_what_was_decoded_encodes_to_the_same(plain, seed, count):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 0.8, (count, 2))
    label = people(*np.hstack([low, low + rng.uniform(0.01, 0.2, (count, 2))]), seed=seed)
    whole = np.array([[0, 0, 1, 1, 0]])
    tokens = plain.tokenize([label], [whole], [(1, 1)], ["a"])
    again = plain.tokenize(plain.detokenize(tokens[0]), [whole], [(1, 1)], ["a"])
    if count <= 7:  # the order of groups is drawn by place, which those left out shift
        np.testing.assert_array_equal(again, tokens)


def test_a_flip_mirrors_box_turn_and_camera(plain):
    label = people((40, 30, 200, 270))
    upright, flipped = (there_and_back(plain, label, crop) for crop in (UPRIGHT, FLIPPED))
    left, top, right, bottom = upright["bbox_xyxy"][0]
    np.testing.assert_allclose(
        flipped["bbox_xyxy"][0], [1 - right, top, 1 - left, bottom], atol=1.1 / 999
    )
    scale, across, down = label["pred_cam"][0]
    np.testing.assert_allclose(flipped["pred_cam"][0], [scale, -across, down], atol=0.011)
    mirror = np.diag([-1, 1, 1])
    turn = np.array(label["pred_smpl_params"]["global_orient"])[0, 0]
    np.testing.assert_allclose(
        flipped["pred_smpl_params"]["global_orient"][0][0], mirror @ turn @ mirror, atol=0.0011
    )
    betas = (each["pred_smpl_params"]["betas"] for each in (upright, flipped))
    assert next(betas) == next(betas)


def test_without_a_codec_a_flipped_person_has_no_pose(plain, vocabulary):
    assert "pose" not in spell(ids_of(plain, people((0, 0, 50, 50)), FLIPPED), vocabulary)
    found = there_and_back(plain, people((0, 0, 50, 50)), FLIPPED)
    assert found["pose_tokenized"] == [None]
    whole = plain.tokenize([found], [np.array([[0, 0, 1, 1, 0]])], [(1, 1)], ["a"])
    assert plain.detokenize(whole[0])[0] == found


def test_a_mirror_moves_joints_as_bodies_are(coded):
    """A chain of joints, each turned by its matrices, ends where the mirror shows its end."""
    body = rotations(23)
    mirrored = mirror_body(body)
    np.testing.assert_allclose(mirror_body(mirrored), body)
    left_arm, right_arm = (12, 15, 17, 19), (13, 16, 18, 20)  # collar, shoulder, elbow, wrist
    bones = np.random.default_rng(1).normal(size=(4, 3))

    def end(pose, chain, lengths):
        place, turned = np.zeros(3), np.eye(3)
        for joint, bone in zip(chain, lengths, strict=True):
            turned = turned @ pose[joint]
            place = place + turned @ bone
        return place

    np.testing.assert_allclose(
        end(mirrored, right_arm, bones * [-1, 1, 1]), end(body, left_arm, bones) * [-1, 1, 1]
    )


def test_with_a_codec_bodies_become_codes_and_flipped_ones_are_the_mirrored_bodys(coded, codec):
    label = with_bodies(people((0, 0, 100, 100), (100, 0, 300, 300)))
    bodies = np.array(label["pred_smpl_params"]["body_pose"])
    for crop, shown in ((UPRIGHT, bodies), (FLIPPED, np.stack(list(map(mirror_body, bodies))))):
        expected = codec.encode(shown.reshape(2, 207).astype(np.float32))
        found = there_and_back(coded, label, crop)
        assert found["pose_tokenized"] == expected.tolist()
        decoded = codec.decode(expected).reshape(2, 23, 3, 3)
        np.testing.assert_allclose(found["pred_smpl_params"]["body_pose"], decoded, rtol=1e-6)
    # from codes alone: they are decoded, mirrored and encoded again
    codes = people((0, 0, 100, 100))
    body = codec.decode(np.array(codes["pose_tokenized"])).reshape(23, 3, 3)
    expected = codec.encode(mirror_body(body.astype(np.float64)).astype(np.float32).reshape(1, 207))
    assert there_and_back(coded, codes, FLIPPED)["pose_tokenized"] == expected.tolist()


def test_tokens_depend_on_no_other_sample(coded):
    labels = [with_bodies(people((0, 0, 90, 90), (9, 9, 80, 80), seed=i), i) for i in range(3)]
    crops = [np.array([UPRIGHT, FLIPPED])] * 3
    together = coded.tokenize(labels, crops, [SIZE] * 3, ["a", "b", "c"])
    assert together.shape == (3, 2, 275)
    alone = coded.tokenize(labels[1:2], crops[1:2], [SIZE], ["b"])
    np.testing.assert_array_equal(together[1:2], alone)
    for row, crop in enumerate(crops[1]):
        ids = coded.encode(labels[1], "b", crop, SIZE)
        assert together[1, row, : len(ids)].tolist() == ids


@given(st.lists(st.integers(0, 4_400), max_size=80) | st.lists(st.integers(200, 1_500)))
@settings(deadline=None)
def test_any_ids_decode_to_a_label(coded, plain, ids):
    words = [id for word in PosesTokenizer.words for id in plain.word(word)]
    mixed = [words[each % len(words)] if each % 7 == 0 else each for each in ids]
    for tokenizer in (plain, coded):
        for row in (ids, mixed):
            (label,) = tokenizer.detokenize(np.array([row], np.int64))
            check_label(modality("human_poses"), label)
            tokenizer.tokenize([label], [np.array([[0, 0, 1, 1, 1]])], [(1, 1)], ["a"])


def test_a_person_cut_short_keeps_what_was_said(plain, vocabulary):
    ids = ids_of(plain, people((0, 0, 50, 50)))
    for length in (4, 5, 20, 38):
        label = plain.decode(ids[:length])
        assert len(label.get("bbox_xyxy", [])) == (length >= 5)
    swapped = [*plain.word("human"), *(number(axis, 9 - axis) for axis in range(4))]
    assert plain.decode(swapped) == {}


def test_the_words_are_one_id_each_and_where_a_small_vocabulary_has_no_room_the_last(vocabulary):
    for each in (vocabulary, train_vocabulary(["looking at a man"] * 9, 4_400)):
        for word in PosesTokenizer.words:
            (id,) = each.encode(word)
            assert id != UNK
    letters = "the quick brown fox jumps over lazy dogs"
    small, large = (train_vocabulary([letters] * 3, size) for size in (4_410, 30_000))
    assert len(small) == 4_410
    for id in range(4_410 - 8):
        assert small.token(id) == large.token(id)


def test_a_vocabulary_without_the_words_spells_them_in_pieces(vocabulary, tmp_path):
    vocabulary.save(tmp_path / "all.json")
    loaded = json.loads((tmp_path / "all.json").read_text())
    words = loaded["model"]["vocab"]
    for word in ("camera", "human", "pose"):  # ids below stay: they are the last but for others
        words[f"unused {word}"] = words.pop(word)
    (tmp_path / "old.json").write_text(json.dumps(loaded))
    old = Vocabulary.load(tmp_path / "old.json")
    assert len(old.encode("camera")) > 1
    label = people((40, 30, 200, 270))
    expected = there_and_back(PosesTokenizer(vocabulary, 275), label)
    assert there_and_back(PosesTokenizer(old, 275), label) == expected


def test_a_folder_keeps_vocabulary_and_codec(coded, plain, tmp_path, vocabulary):
    label = with_bodies(people((0, 0, 90, 90)))
    for name, tokenizer in (("coded", coded), ("plain", plain)):
        tokenizer.save(tmp_path / name)
        loaded = registry.load(tmp_path / name)
        assert isinstance(loaded, PosesTokenizer)
        assert loaded.spec == tokenizer.spec
        loaded.save(tmp_path / f"{name} again")
        digests = {registry.weights_sha256(tmp_path / each) for each in (name, f"{name} again")}
        assert len(digests) == 1
    crops = [np.array([UPRIGHT, FLIPPED])]
    loaded = registry.load(tmp_path / "coded")
    np.testing.assert_array_equal(
        loaded.tokenize([label], crops, [SIZE], ["a"]),
        coded.tokenize([label], crops, [SIZE], ["a"]),
    )
    (tmp_path / "coded" / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="not a tokenizer of vectors"):
        registry.load(tmp_path / "coded")
    folders = registry.save_text_tokenizers(tmp_path, vocabulary, ["human_poses"])
    definition = registry.load(folders["human_poses"]).token_modality
    assert (definition.name, definition.token_of) == ("tok_human_poses", "human_poses")
    assert (definition.masking, definition.max_tokens) == (Masking.SEQUENCE, 275)


def test_the_codes_of_poses_alone_are_nothing_that_4m_sees(codec):
    definition = codec.token_modality
    assert (definition.name, definition.masking) == ("tok_body_pose", None)
    assert (definition.max_tokens, definition.vocab_size) == (8, 1024)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"bbox_xyxy": None}, "bbox_xyxy is None, expected a list"),
        ({"bbox_xyxy": [[1, 2, 3]]}, "expected 4 numbers"),
        ({"bbox_xyxy": [None]}, "expected 4 numbers"),
        ({"bbox_xyxy": [[1, 2, 3, 10**400]]}, "expected 4 numbers"),
        ({"pred_cam": [[1, 2, "x"]]}, "expected 3 numbers"),
        ({"pred_cam": [[1, 2, 3], [1, 2, 3]]}, "one for each of 1 people"),
        ({"pose_tokenized": [[1024] * 8]}, "whole numbers below 1024"),
        ({"pose_tokenized": [[0.5] * 8]}, "whole numbers below 1024"),
        ({"pred_smpl_params": [1]}, "expected a dict of lists"),
        ({"pred_smpl_params": {"betas": [[True] * 10]}}, "expected 10 numbers"),
        ({"pose_tokenized": None, "pred_smpl_params": {"body_pose": [[0.0] * 207]}}, "codec"),
    ],
)  # fmt: skip
def test_a_bad_label_is_the_failure_of_its_sample(plain, changed, message):
    with pytest.raises(SampleError, match=message):
        ids_of(plain, people((0, 0, 50, 50)) | changed)
    with pytest.raises(SampleError, match="expected a dict of lists"):
        ids_of(plain, [1])


def test_another_codec_is_refused(vocabulary):
    network = BottleneckAutoencoder(
        BottleneckConfig(channels=207, codes=32, **SHAPE | {"books": 4})
    )
    with pytest.raises(
        ConfigError, match="vectors of 4 tokens with 32 codes, expected a tokenizer"
    ):
        PosesTokenizer(vocabulary, 275, VectorTokenizer(modality("body_pose"), network))
