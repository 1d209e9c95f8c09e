"""The built-in corpora by name, and the packages that they need."""

import inspect
from collections.abc import Callable, Sequence

from fourmill.manifests.errors import ConfigError, UnknownNameError
from fourmill.manifests.packages import PackageRecord, record
from fourmill.pipeline.corpora import furniture, photos, stamps
from fourmill.pipeline.corpora.composites import CompositesSource
from fourmill.pipeline.corpora.photos import PhotosSource
from fourmill.pipeline.corpora.rooms import RoomsSource

BuiltIn = PhotosSource | CompositesSource | RoomsSource

_SOURCES: dict[str, Callable[..., BuiltIn]] = {
    "photos": PhotosSource,
    "composites": CompositesSource,
    "rooms": RoomsSource,
}
_PACKAGES = {
    "photos": photos.PACKAGES,
    "composites": photos.PACKAGES,
    "rooms": (furniture.PACKAGE, stamps.PACKAGE),
}
_OPTIONS = ("count", "seed")


def names() -> list[str]:
    """All built-in corpora."""
    return sorted(_SOURCES)


def open_builtin(name: str, **options: int) -> BuiltIn:
    """The corpus of that name.

    Args:
        options: `photos`: `count` (default: all); `composites` and `rooms`: `count` (default 200)
            and `seed` (default 0).

    Raises:
        UnknownNameError: no such corpus or option; the message names the nearest.
        ConfigError: a count below 1.
    """
    if name not in _SOURCES:
        raise UnknownNameError("built-in corpus", name, _SOURCES)
    source = _SOURCES[name]
    known = [each for each in inspect.signature(source).parameters if each in _OPTIONS]
    for option in options:
        if option not in known:
            raise UnknownNameError(f"option of builtin:{name}", option, known)
    if options.get("count", 1) < 1:
        raise ConfigError(f"builtin:{name}: count must be at least 1, not {options['count']}")
    return source(**options)


def prefetch(names: Sequence[str]) -> list[PackageRecord]:
    """Fetch all Debian packages that these corpora need, so that they then work offline.

    Raises:
        UnknownNameError: no such corpus.
        MissingPackageError: a package cannot be fetched.
    """
    for name in names:
        if name not in _PACKAGES:
            raise UnknownNameError("built-in corpus", name, _PACKAGES)
    needed = dict.fromkeys(package for name in names for package in _PACKAGES[name])
    return [record("apt", each) for each in needed]
