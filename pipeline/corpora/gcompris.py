"""The photographs of Debian's `gcompris-qt-data`: animals, monuments, tools, with text and credits.

They lie in Qt resource archives; beside them README files say who made each, under which licence,
and where it came from, and the program's screens carry titles and paragraphs about many.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from urllib.parse import unquote

from fourmill.manifests.packages import package_file
from fourmill.pipeline.corpora.qt_resources import QtResources
from fourmill.pipeline.corpora.wording import with_article

PACKAGE = "gcompris-qt-data"

MAX_CAPTION = 300  # characters

_ARCHIVES = {
    "explore_monuments": r"resource/\w+/\w+\.webp",
    "explore_world_animals": r"resource/animals/\w+\.webp",
    "explore_farm_animals": r"resource/animals/\w+\.webp",
    "explore_world_music": r"resource/music/\w+\.webp",
    "categorization": r"resource/images/(fishes|monuments|others|renewable|tools)/\w+\.webp",
    "erase": r"resource/\w+\.webp",
    "details": r"resource/image/.*_background\.webp",
    "clickgame": r"resource/sea\d\.webp",
}
"""Archives, and which of their pictures are photographs."""

_NAMES = {
    "solar": "solar power plant", "plier": "pair of pliers", "tweezer": "pair of tweezers",
    "scissors": "pair of scissors", "geothermal": "geothermal power plant", "spray": "spray bottle",
    "blackslate": "blackboard", "buffetset": "cup and saucer", "bulb": "light bulb",
    "erasers": "row of erasers", "knife": "set of cutlery", "pan": "cooking pan",
    "cutting tool": "cutting tool", "plate": "plate", "spoons": "row of spoons", "cup": "cup",
    "screw driver": "screwdriver", "sea": "sea floor", "camels": "group of camels",
    "meerkats": "group of meerkats", "spoonbills": "group of spoonbills", "swans": "group of swans",
}  # fmt: skip
_ENTRY = re.compile(
    r'"title": qsTr\("(?P<title>[^"]*)"\),\s*"text": qsTr\("(?P<text>[^"]*)"\)'
    r'[^{}]*?"image2": "qrc:/(?P<image>[^"]*\.webp)"'
)
_INSTRUCTION = re.compile(r'instruction: qsTr\("(?P<text>[^"]*)"\)')
_FIELD = re.compile(r"^(Copyright|License|Source): *(.+?) *$", re.MULTILINE)
_ORIGINAL = re.compile(
    r"original image by (?P<Copyright>.+), license (?P<License>.+?), source at (?P<Source>\S+)"
)
_BACKGROUND = re.compile(r'"(?P<image>image/[^"]*_background\.webp)"')


@dataclass(frozen=True)
class Photo:
    """One photograph.

    Attributes:
        name: its path inside the archive, below the activities' folder.
        archive, member: where its bytes are.
        place: whether it shows a place (a monument, a landscape) rather than a thing or an animal.
    """

    name: str
    archive: str
    member: str
    caption: str
    title: str
    creator: str
    licence: str
    url: str
    place: bool


def read_photo(photo: Photo) -> bytes:
    """The WebP file as it is in the package."""
    return _archive(photo.archive).read(photo.member)


@lru_cache(maxsize=1)
def photos() -> tuple[Photo, ...]:
    """All photographs of known licence, in a stable order, each source once.

    Raises:
        MissingPackageError: the Debian package is not there and cannot be fetched.
    """
    found: dict[str, Photo] = {}
    for archive, pattern in _ARCHIVES.items():
        resources = _archive(archive)
        root = f"gcompris/src/activities/{archive}/"
        texts, credits = _texts(resources, root), _credits(resources)
        for member in sorted(resources.names()):
            name = member.removeprefix(root)
            text = texts.get(member, ("", ""))
            if re.fullmatch(pattern, name) and not text[1].startswith("Vincent van Gogh"):
                photo = _photo(archive, member, name, text, credits.get(member, {}))
                if photo.licence:
                    found.setdefault(photo.url or photo.name, photo)
    return tuple(found.values())


@lru_cache(maxsize=len(_ARCHIVES))
def _archive(name: str) -> QtResources:
    file = package_file("apt", PACKAGE, None, f"usr/share/gcompris-qt/rcc/{name}.rcc")
    return QtResources(file.read_bytes())


def _photo(
    archive: str, member: str, name: str, text: tuple[str, str], credit: Mapping[str, str]
) -> Photo:
    title, paragraph = text
    url = credit.get("Source", "")
    creator = credit.get("Copyright", "")
    file_title = commons_title(url).removesuffix(f" {creator}")
    folder = PurePosixPath(name).parent.name
    place = archive in ("explore_monuments", "details", "clickgame") or folder in (
        "monuments", "renewable",
    )  # fmt: skip
    if archive == "details":
        title, caption = paragraph.rstrip("."), paragraph.rstrip(".") + "."
    elif paragraph:
        caption = _shortened(f"{title.rstrip('.')}. {paragraph}")
    else:
        word = _spoken(PurePosixPath(name).stem, is_name=folder == "monuments")
        says_more = set(file_title.lower().split()) - set(word.lower().split())
        caption = f"{word[0].upper()}{word[1:]}{f': {file_title}' if says_more else ''}."
        title = file_title or word
    return Photo(
        f"{archive}/{name.removeprefix('resource/')}", archive, member, caption, title,
        creator, _licence(credit.get("License", "")), url, place,
    )  # fmt: skip


def _licence(text: str) -> str:
    """One spelling for each."""
    text = {"public domain": "Public Domain", "gplv2+": "GPL-2.0-or-later"}.get(text.lower(), text)
    return text.replace(" ", "-") if text.startswith("CC-") else text


def _shortened(text: str) -> str:
    """As many whole sentences as make up a caption, at least one."""
    ends = [each.end() for each in re.finditer(r"[.!?](?= |$)", text)]
    return text[: max([end for end in ends if end <= MAX_CAPTION] or ends[:1] or [len(text)])]


def _spoken(stem: str, *, is_name: bool) -> str:
    """A file's name in words: with an article for a thing, capitals for a monument's name."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", re.sub(r"\d+$", "", stem))
    if is_name:
        return " ".join(f"{each[0].upper()}{each[1:]}" for each in spaced.split())
    plain = spaced.lower()
    return with_article(_NAMES.get(plain, plain))


def commons_title(url: str) -> str:
    """What the file's name on Wikimedia Commons says, `""` where it is a number of a camera.

    >>> commons_title("https://commons.wikimedia.org/wiki/File:Pomacanthus_arcuatus_1.jpg")
    'Pomacanthus arcuatus'
    >>> commons_title("https://commons.wikimedia.org/wiki/File:DSCN1716.JPG")
    ''
    """
    if "/wiki/File:" not in url:
        return ""
    name = unquote(url.split("/wiki/File:")[1]).rsplit(".", 1)[0].replace("_", " ")
    name = re.sub(r"\([^()]*\)|\b[A-Z]{2,4}[ -]?\d[\w-]*|--+|\b\w*\d\w*\b", " ", name)
    name = re.sub(r"\s+([,.])", r"\1", " ".join(name.split())).strip(" ,.-")
    return name if re.search("[A-Za-z]{3}", name) and len(name) > 5 else ""


def _texts(resources: QtResources, root: str) -> dict[str, tuple[str, str]]:
    """Title and paragraph about a picture, by its member name."""
    texts: dict[str, tuple[str, str]] = {}
    for name in resources.names():
        if not name.endswith(".qml"):
            continue
        screen = resources.read(name).decode("utf-8")
        for entry in _ENTRY.finditer(screen):
            texts.setdefault(entry["image"], (entry["title"].strip(), entry["text"].strip()))
        instruction, picture = _INSTRUCTION.search(screen), _BACKGROUND.search(screen)
        if instruction and picture:
            texts[f"{root}resource/{picture['image']}"] = ("", instruction["text"])
    return texts


def _credits(resources: QtResources) -> dict[str, dict[str, str]]:
    """Copyright, License and Source of a picture, by its member name, from the README files."""
    credits: dict[str, dict[str, str]] = {}
    for name in resources.names():
        if PurePosixPath(name).name != "README":
            continue
        text = resources.read(name).decode("utf-8").replace("\r", "")
        for block in re.split(r"\n\s*\n", text):
            fields = dict(_FIELD.findall(block))
            if original := _ORIGINAL.search(block):
                fields = original.groupdict()
            for file in re.findall(r"^(?:Files:)? *(\S+\.webp)", block, re.MULTILINE):
                credits[str(PurePosixPath(name).parent / file)] = fields
    return credits
