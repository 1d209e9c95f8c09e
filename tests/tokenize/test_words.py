"""Text-like modalities as words: the reference's strings, and the way back."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fourmill.manifests.errors import ConfigError, SampleError
from fourmill.manifests.modalities import Kind, Masking, Modality
from fourmill.tokenize import registry
from fourmill.tokenize.boxes import BoxesTokenizer
from fourmill.tokenize.metadata import FIELDS, MetadataTokenizer
from fourmill.tokenize.palette import PaletteTokenizer
from fourmill.tokenize.text import TextTokenizer
from fourmill.tokenize.vocabulary import (
    COCO_CLASSES,
    EOS,
    PAD,
    UNK,
    Vocabulary,
    number,
    sentinel,
    spell,
    train_vocabulary,
)

DATA = Path(__file__).parents[1] / "data" / "tokenize"
WHOLE = [np.array([[0, 0, 300, 400, 0]])]
SIZE = [(300, 400)]


def tokenize(tokenizer, label, crops=WHOLE, key="a"):
    return tokenizer.tokenize([label], crops, SIZE, [key])[0]


def there_and_back(tokenizer, label, key="a") -> Any:
    return tokenizer.detokenize(tokenize(tokenizer, label, key=key).reshape(1, -1))[0]


def test_ids_are_laid_out_as_in_the_reference(vocabulary):
    assert [vocabulary.token(id) for id in (0, 1, 2, 3, 4, 203)] == [
        "[PAD]", "[UNK]", "[SOS]", "[EOS]", "[S_0]", "[S_199]",
    ]  # fmt: skip
    assert vocabulary.token(sentinel(1)) == "[S_1]"
    assert [vocabulary.token(id) for id in (204, 1203, 1204, 4203)] == [
        "v0=0",
        "v0=999",
        "v1=0",
        "v3=999",
    ]
    assert [vocabulary.token(id) for id in (4204, 4283, 4284)] == ["airplane", "zebra", "!"]
    assert list(COCO_CLASSES) == sorted(COCO_CLASSES)
    assert len(COCO_CLASSES) == 80


def test_a_class_has_the_same_id_in_a_caption_and_in_a_detection(vocabulary):
    ids = vocabulary.encode("A dog, a Baseball Bat and hotdogs")
    assert [COCO_CLASSES[id - 4204] for id in ids if 4204 <= id < 4284] == ["dog", "baseball bat"]


@given(st.text(max_size=60))
@settings(deadline=None)
def test_decoding_what_was_encoded_encodes_to_the_same(vocabulary, text):
    ids = vocabulary.encode(text)
    if UNK not in ids:
        assert vocabulary.encode(vocabulary.decode(ids)) == ids


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60))
@settings(deadline=None)
def test_latin_text_has_no_unknown_words_and_loses_only_case_and_spaces(vocabulary, text):
    ids = vocabulary.encode(text)
    assert UNK not in ids
    assert vocabulary.decode(ids).replace(" ", "") == text.lower().replace(" ", "")


def test_special_tokens_in_a_caption_are_plain_text(vocabulary):
    ids = vocabulary.encode("ignore [EOS] [S_1] v0=12 and [PAD]")
    assert all(id >= 4204 for id in ids)


def test_a_vocabulary_is_the_same_whatever_the_order_or_the_process(tmp_path):
    program = (
        "import random, sys, pathlib\n"
        "from fourmill.tokenize.vocabulary import train_vocabulary\n"
        "captions = ['a man on a red bike', 'naïve cats and a man', 'the 日本の cat'] * 2\n"
        "draw = random.Random(0).choices  # of many pairs that are equally frequent\n"
        "captions += [''.join(draw('abcdefghijklmnop  ', k=40)) for _ in range(99)]\n"
        "train_vocabulary(captions[:: int(sys.argv[1])], 5000).save(pathlib.Path(sys.argv[2]))"
    )
    files = [tmp_path / "one.json", tmp_path / "other.json"]
    for step, file in zip(("1", "-1"), files, strict=True):
        subprocess.run([sys.executable, "-c", program, step, file], check=True)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_vocabulary_learns_frequent_words_and_stays_small(vocabulary):
    assert len(vocabulary.encode("looking")) == 1
    assert len(train_vocabulary(["looking at a man"] * 9, 4_400)) <= 4_400
    with pytest.raises(ConfigError, match="expected at least"):
        train_vocabulary(["a"], 4_200)


def test_a_saved_vocabulary_loads_to_the_same_ids_and_bytes(vocabulary, tmp_path):
    vocabulary.save(tmp_path / "a.json")
    loaded = Vocabulary.load(tmp_path / "a.json")
    loaded.save(tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert loaded.encode("a red [EOS] man") == vocabulary.encode("a red [EOS] man")


def test_a_file_that_is_no_vocabulary_of_4m_is_refused(tmp_path):
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece

    Tokenizer(WordPiece({"[PAD]": 0, "cat": 1}, unk_token="[PAD]")).save(
        str(tmp_path / "other.json")
    )
    (tmp_path / "broken.json").write_text("{")
    for name, message in [
        ("other", "not a vocabulary of 4M"),
        ("broken", "not a tokenizer"),
        ("none", "expected"),
    ]:
        with pytest.raises(ConfigError, match=message):
            Vocabulary.load(tmp_path / f"{name}.json")


def test_captions_end_and_are_padded_to_one_size(vocabulary):
    tokenizer = TextTokenizer(vocabulary, 12)
    tokens = tokenizer.tokenize(["a red man", "", "a " * 40], WHOLE * 3, SIZE * 3, ["a", "b", "c"])
    assert tokens.dtype == np.int16
    assert tokens.shape == (3, 12)
    assert tokens[0, 3:].tolist() == [EOS] + [PAD] * 8
    assert tokens[1].tolist() == [EOS] + [PAD] * 11
    assert EOS not in tokens[2]
    assert tokenizer.detokenize(tokens) == ["a red man", "", " ".join("a" * 12)]


CROPS = [(0, 0, 300, 400, 0), (0, 50, 300, 300, 0), (10, 120, 200, 180, 1), (100, 0, 150, 90, 1)]


def five_boxes() -> Any:
    return {
        "instances": [
            {
                "boxes": [0.1 * i, 0.05 * i, 0.1 * i + 0.3, 0.05 * i + 0.4],
                "class_name": name,
                "score": 0.5 + 0.1 * i,
            }
            for i, name in enumerate(["dog", "cat", "tv", "person", "car"])
        ]
    }


@pytest.mark.parametrize("case", range(4))
def test_boxes_are_the_string_that_the_reference_makes(case, vocabulary):
    tokens = tokenize(BoxesTokenizer(vocabulary, 256), five_boxes(), [np.array([CROPS[case]])])
    expected = str(np.load(DATA / "reference.npz")[f"det/{case}"])
    ids = tokens[0].tolist()
    assert spell(ids[: ids.index(EOS)], vocabulary) == expected


def test_boxes_come_back_within_half_a_thousandth(vocabulary):
    tokenizer = BoxesTokenizer(vocabulary, 64)
    found = there_and_back(tokenizer, five_boxes())["instances"]
    expected = five_boxes()["instances"][1:]  # the dog's score is too low
    assert [each["class_name"] for each in found] == ["cat", "tv", "person", "car"]
    for got, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(got["boxes"], wanted["boxes"], atol=0.5 / 999 + 1e-9)


def test_where_boxes_do_not_fit_the_surest_are_kept_whole(vocabulary):
    tokenizer = BoxesTokenizer(vocabulary, 12)
    found = there_and_back(tokenizer, five_boxes())["instances"]
    assert [each["class_name"] for each in found] == ["person", "car"]


def test_unknown_class_names_are_spelled_in_pieces(vocabulary):
    label = {"instances": [{"boxes": [0, 0, 1, 1], "class_name": "launch pad", "score": 1.0}]}
    tokenizer = BoxesTokenizer(vocabulary, 30)
    assert there_and_back(tokenizer, label)["instances"][0]["class_name"] == "launch pad"


def palette_label() -> Any:
    return [{str(k): [[10 * k + i, 255 - i, 3] for i in range(k)] for k in range(1, 8)}]


def test_a_palette_comes_back_exactly_and_the_key_draws_its_size(vocabulary):
    tokenizer = PaletteTokenizer(vocabulary, 23)
    sizes = set()
    for key in map(str, range(40)):
        palette = there_and_back(tokenizer, palette_label(), key)[0]
        ((size, colours),) = palette.items()
        assert colours == palette_label()[0][size]
        sizes.add(size)
    assert sizes == set("1234567")


def test_metadata_is_pairs_of_field_and_bin_in_an_order_of_the_keys(vocabulary):
    label = {"original_width": 640, "brightness": 127.5, "aesthetic_score": 5.0, "n_humans": 2}
    tokenizer = MetadataTokenizer(vocabulary, 40)
    tokens = [tokenize(tokenizer, label, key=str(i)).tolist() for i in range(30)]
    pairs = {tuple(sorted(zip(row[0:8:2], row[1:8:2], strict=True))) for row in tokens}
    fields = {field.name: id for id, field in enumerate(FIELDS)}
    expected = [("original_width", 20), ("brightness", 24), ("aesthetic_score", 1), ("n_humans", 2)]
    assert pairs == {
        tuple(sorted((number(1, fields[name]), number(0, bin)) for name, bin in expected))
    }
    assert len({tuple(row) for row in tokens}) > 10


@given(
    st.dictionaries(
        st.sampled_from([each.name for each in FIELDS]), st.floats(0, 2000), max_size=19
    )
)
@settings(deadline=None)
def test_the_bins_of_metadata_survive_a_round_trip(vocabulary, label):
    tokenizer = MetadataTokenizer(vocabulary, 40)
    tokens = tokenize(tokenizer, label)
    again = there_and_back(tokenizer, label)
    assert again.keys() == label.keys()
    np.testing.assert_array_equal(tokenize(tokenizer, again), tokens)


@given(st.lists(st.integers(0, 4300), min_size=8, max_size=40))
@settings(deadline=None)
def test_any_ids_that_a_model_says_decode_to_valid_labels(vocabulary, ids):
    from fourmill.manifests.labels import check_label

    for make in (TextTokenizer, BoxesTokenizer, PaletteTokenizer, MetadataTokenizer):
        tokenizer = make(vocabulary, 40)
        for label in tokenizer.detokenize(np.array([ids])):
            check_label(tokenizer.stored, label)


@pytest.mark.parametrize(
    ("make", "label", "message"),
    [
        (TextTokenizer, ["a"], "expected a string"),
        (BoxesTokenizer, {"instances": [{"boxes": [0, 0, 2, 1]}]}, "from 0 to 1"),
        (PaletteTokenizer, [{"2": [[1, 2, 3]]}], "expected 2 colours"),
        (PaletteTokenizer, [{"1": [[1, 2, 256]]}], "from 0 to 255"),
        (PaletteTokenizer, {}, "expected"),
        (MetadataTokenizer, {"brightnes": 3}, "did you mean 'brightness'"),
        (MetadataTokenizer, {"brightness": "high"}, "expected a number"),
    ],
)
def test_a_bad_label_is_the_failure_of_its_sample(make, label, message, vocabulary):
    with pytest.raises(SampleError, match=message):
        tokenize(make(vocabulary, 40), label)


def test_other_texts_and_other_boxes_are_written_in_the_same_words(vocabulary, tmp_path):
    signs = Modality("signs", Kind.TEXT, "signs", "txt", Masking.SEQUENCE, 30_000, 16)
    folders = registry.save_text_tokenizers(tmp_path, vocabulary, ["grounding", "caption", "det"])
    boxes = registry.load(folders["grounding"])
    assert (boxes.spec.modality, boxes.spec.reads) == ("tok_grounding", "grounding")
    assert boxes.token_modality.token_of == "grounding"
    label = {"instances": [{"boxes": [0.0, 0.2, 1.0, 0.5], "class_name": "cup", "score": 1.0}]}
    det = registry.load(folders["det"])
    np.testing.assert_array_equal(tokenize(boxes, label), tokenize(det, label))
    # its modality is stored with a tokenizer, so that nobody needs to know it beforehand
    TextTokenizer(vocabulary, 16, signs).save(whole := tmp_path / "tok_signs")
    found = registry.load(whole)
    assert found.token_modality.name == "tok_signs"
    assert there_and_back(found, "A cup of coffee") == "a cup of coffee"
    with pytest.raises(SampleError, match="signs: found list, expected a string"):
        tokenize(found, [7])
    with pytest.raises(ConfigError, match="no text-like modality called 'depth'"):
        registry.save_text_tokenizers(tmp_path, vocabulary, ["depth"])
