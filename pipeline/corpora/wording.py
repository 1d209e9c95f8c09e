"""Captions of made scenes: articles, plurals, lists."""

from collections import Counter
from collections.abc import Sequence

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_VOWEL_SOUNDS = ("hour", "SUV", "MP3", "F-", "heir")
_CONSONANT_SOUNDS = ("uni", "use", "eu", "one", "uk", "ute")
_IRREGULAR = {
    "man": "men", "woman": "women", "knife": "knives", "shelf": "shelves", "mouse": "mice",
    "goose": "geese", "tooth": "teeth", "child": "children", "bookshelf": "bookshelves",
    "loaf": "loaves", "leaf": "leaves", "bison": "bison", "sheep": "sheep", "deer": "deer",
    "fish": "fish",
}  # fmt: skip
_SOME = frozenset({
    "bread", "butter", "milk", "sugar", "sushi", "soap", "apples", "flowers", "tulips", "orchids",
    "shelves", "fries", "clothes", "logs", "rails", "lights", "salad", "stairs", "broccoli",
    "corn", "garlic", "grapes", "ginger", "ivy", "bamboo",
})  # fmt: skip


def with_article(name: str) -> str:
    """The name with `a`, `an` or `some`.

    >>> with_article("armchair"), with_article("unicycle"), with_article("SUV")
    ('an armchair', 'a unicycle', 'an SUV')
    >>> with_article("bread"), with_article("vertical shelves")
    ('some bread', 'some vertical shelves')
    """
    if name.split()[-1].lower() in _SOME:
        return f"some {name}"
    if name.startswith(_VOWEL_SOUNDS):
        return f"an {name}"
    if name.lower().startswith(_CONSONANT_SOUNDS):
        return f"a {name}"
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def plural(name: str) -> str:
    """More than one of it.

    >>> plural("box"), plural("pair of shoes"), plural("woman"), plural("city")
    ('boxes', 'pairs of shoes', 'women', 'cities')
    """
    head, preposition, rest = name.partition(" of ")
    if preposition:
        return f"{plural(head)} of {rest}"
    for tail in (" with ", " lying ", " under ", " on ", " at "):
        head, found, rest = name.partition(tail)
        if found:
            return f"{plural(head)}{tail}{rest}"
    start, space, last = name.rpartition(" ")
    if last in _SOME:
        return name
    if last in _IRREGULAR:
        last = _IRREGULAR[last]
    elif last.endswith(("s", "x", "ch", "sh", "z")):
        last += "es"
    elif last.endswith("y") and last[-2:-1] not in "aeiou":
        last = last[:-1] + "ies"
    else:
        last += "s"
    return f"{start}{space}{last}"


def listing(names: Sequence[str], most: int = 6) -> str:
    """Names as one says them together, the same ones counted, in the order given.

    >>> listing(["cat", "armchair", "cat"])
    'two cats and an armchair'
    """
    counts = Counter(names)
    parts = []
    for name, count in list(counts.items())[:most]:
        if count == 1:
            parts.append(with_article(name))
        elif name.split()[-1].lower() in _SOME:
            parts.append(f"some {name}")
        else:
            number = _NUMBERS[count] if count < len(_NUMBERS) else str(count)
            parts.append(f"{number} {plural(name)}")
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
