"""The catalogue: every expert by name, from this package and from anybody's.

A file `experts/<name>.py` that ends with `LABELER = TheClass` is an expert; its name is the file's
with dashes for underscores. Other packages add theirs through the entry point group
`fourmill.labelers`, whose entries point at such classes.
"""

import importlib
import pkgutil
from collections.abc import Container, Iterable
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points

import fourmill.labelers.experts as experts
from fourmill.labelers.base import Labeler, LabelerSpec
from fourmill.manifests.errors import ConfigError, UnknownNameError

GROUP = "fourmill.labelers"


def names() -> list[str]:
    """All experts, sorted; none is imported."""
    return sorted({*_built_in(), *_installed()})


def labeler_class(name: str) -> type[Labeler]:
    """The class of an expert, which imports its file and nothing heavy.

    Raises:
        UnknownNameError: there is none of this name; the message names the nearest.
        ConfigError: its file or entry does not give a labeler.
    """
    if name in _built_in():
        module = importlib.import_module(f"{experts.__name__}.{_built_in()[name]}")
        found: object = getattr(module, "LABELER", None)
    elif name in _installed():
        found = _installed()[name].load()
    else:
        raise UnknownNameError("labeler", name, names())
    if not (isinstance(found, type) and issubclass(found, Labeler)):
        raise ConfigError(
            f"labeler {name}: its file's LABELER, or its package's entry, is {found!r}, expected a "
            "subclass of Labeler"
        )
    return found


def spec(name: str) -> LabelerSpec:
    """What is known of an expert without loading it.

    Raises:
        UnknownNameError: there is none of this name; the message names the nearest.
    """
    return labeler_class(name).spec


def get(name: str) -> Labeler:
    """A new instance, not loaded.

    Raises:
        UnknownNameError: there is none of this name; the message names the nearest.
    """
    return labeler_class(name)()


def makers(modality: str) -> list[str]:
    """All labelers that write a modality: those that are no alternatives first, then by name."""
    found = [name for name in names() if modality in spec(name).writes]
    return sorted(found, key=lambda name: (spec(name).alternative, name not in _built_in()))


def default_maker(modality: str) -> str | None:
    """The labeler that makes a modality unless a user asks for another one."""
    found = makers(modality)
    return found[0] if found else None


def with_makers(wanted: Iterable[str], known: Container[str]) -> list[str]:
    """The labelers, preceded by those that make what they read.

    Who is wanted makes what it writes; of what nobody wanted writes, the default maker is taken.

    Args:
        known: modalities that are there and need no maker.

    Raises:
        UnknownNameError: there is none of this name; the message names the nearest.
        ConfigError: one reads what is not there and no labeler makes.
    """
    wanted = list(wanted)
    chosen = {modality: name for name in reversed(wanted) for modality in spec(name).writes}
    ordered: dict[str, None] = {}

    def add(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise ConfigError(f"these wait for each other: {' -> '.join((*path, name))}")
        for each in spec(name).reads:
            if each in known or each in spec(name).optional:
                continue
            maker = chosen.get(each) or default_maker(each)
            if maker is None:
                raise ConfigError(f"{name} reads {each}, which is not there and no labeler makes")
            if maker not in ordered:
                add(maker, (*path, name))
        ordered[name] = None

    for name in wanted:
        add(name, ())
    return list(ordered)


@lru_cache(maxsize=1)
def _built_in() -> dict[str, str]:
    modules = (each.name for each in pkgutil.iter_modules(experts.__path__))
    return {name.replace("_", "-"): name for name in modules}


@lru_cache(maxsize=1)
def _installed() -> dict[str, EntryPoint]:
    return {each.name: each for each in entry_points(group=GROUP)}
