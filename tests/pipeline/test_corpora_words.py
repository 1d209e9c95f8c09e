"""What captions are made of."""

import struct
import zlib

import pytest
import zstandard

from fourmill.manifests.errors import SourceError
from fourmill.pipeline.corpora.furniture_words import coarse_class, spoken_name
from fourmill.pipeline.corpora.gcompris import commons_title
from fourmill.pipeline.corpora.qt_resources import QtResources
from fourmill.pipeline.corpora.stamps import spoken_name as stamp_name
from fourmill.pipeline.corpora.wording import listing, plural, with_article


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("armchair", "an armchair"), ("unicycle", "a unicycle"), ("TV", "a TV"),
        ("SUV", "an SUV"), ("hour glass", "an hour glass"), ("F-22 Raptor", "an F-22 Raptor"),
        ("European bear", "a European bear"), ("bread", "some bread"), ("umbrella", "an umbrella"),
    ],
)  # fmt: skip
def test_the_article_follows_the_sound(name: str, said: str) -> None:
    assert with_article(name) == said


@pytest.mark.parametrize(
    ("one", "more"),
    [
        ("couch", "couches"), ("pair of scissors", "pairs of scissors"), ("man", "men"),
        ("chair with cushion", "chairs with cushion"), ("sitting woman", "sitting women"),
        ("baby", "babies"), ("boy", "boys"), ("box", "boxes"),
    ],
)  # fmt: skip
def test_more_than_one_is_said_right(one: str, more: str) -> None:
    assert plural(one) == more


def test_a_listing_counts_and_ends_with_and() -> None:
    assert listing(["sofa"]) == "a sofa"
    assert listing(["chair", "table", "chair"]) == "two chairs and a table"
    assert listing(list("abcdefgh"), most=3) == "an a, a b and a c"


@pytest.mark.parametrize(
    ("name", "category", "tags", "klass"),
    [
        ("Sitting female", "Characters", ("Human",), "person"),
        ("Bulldog", "Characters", ("Animal",), "animal"),
        ("Dog house", "Exterior", ("Animal", "Outdoor"), "building"),
        ("Bar stool", "Living room", ("Seat",), "seat"),
        ("Pine", "Exterior", ("Tree",), "plant"),
        ("Parking slot 45°", "Exterior", ("Road",), "ground"),
        ("Wheelbarrow", "Exterior", ("Garden",), "object"),
        ("Chest freezer", "Kitchen", ("Appliance",), "appliance"),
        ("Lamp", "Lights", (), "lamp"),
    ],
)
def test_furniture_gets_the_class_that_a_person_would_give(
    name: str, category: str, tags: tuple[str, ...], klass: str
) -> None:
    assert coarse_class(name, category, tags) == klass


def test_names_are_said_as_people_say_them() -> None:
    assert spoken_name("Lying down female") == "woman lying down"
    assert spoken_name("Double window 4 panes") == "double window"
    assert stamp_name("A rhea.") == "rhea"
    assert stamp_name("Pluto—until recently, it was considered the 9th planet.") == ""
    assert stamp_name("A button (of a coat) is round.") == "button"


def test_a_camera_number_is_no_title() -> None:
    assert commons_title("https://commons.wikimedia.org/wiki/File:IMG_2050.JPG") == ""
    assert commons_title("https://example.org/a.jpg") == ""
    title = "D%C3%BClmen,_Alpakas_--_2020_--_5338.jpg"
    assert commons_title(f"https://commons.wikimedia.org/wiki/File:{title}") == "Dülmen, Alpakas"


def make_archive(files: dict[str, tuple[int, bytes]]) -> bytes:
    """A Qt resource archive of version 2 with all files in one folder `f`."""
    names, contents, offsets = b"", b"", {}
    for name in ("f", *files):
        offsets[name] = len(names)
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
    tree = struct.pack(">IHIIQ", 0, 2, 1, 1, 0)
    tree += struct.pack(">IHIIQ", offsets["f"], 2, len(files), 2, 0)
    for name, (flags, data) in files.items():
        tree += struct.pack(">IHHHIQ", offsets[name], flags, 0, 0, len(contents), 0)
        contents += struct.pack(">I", len(data)) + data
    start = 20
    places = (start, start + len(tree), start + len(tree) + len(contents))
    return b"qres" + struct.pack(">IIII", 2, *places) + tree + contents + names


def test_a_qt_archive_gives_its_files_plain_deflated_and_zstandard() -> None:
    deflated = struct.pack(">I", 5) + zlib.compress(b"hello")
    archive = QtResources(make_archive({
        "a.txt": (0, b"plain"), "b.txt": (1, deflated),
        "c.txt": (4, zstandard.ZstdCompressor().compress(b"third")),
    }))  # fmt: skip
    assert archive.names() == ["f/a.txt", "f/b.txt", "f/c.txt"]
    assert [archive.read(each) for each in archive.names()] == [b"plain", b"hello", b"third"]


def test_what_is_no_qt_archive_is_refused() -> None:
    with pytest.raises(SourceError, match="qres"):
        QtResources(b"PK\x03\x04 something else entirely")
