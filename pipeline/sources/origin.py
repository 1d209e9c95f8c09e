"""What the records of corpora call things: captions, URLs, licences, scores."""

from collections.abc import Mapping
from typing import Any

CAPTION_COLUMNS = ("caption", "text", "title", "description", "alt", "captions")
URL_COLUMNS = ("url", "image_url", "img_url", "link")
_ORIGIN = {
    "url": URL_COLUMNS,
    "title": ("title",),
    "licence": ("licence", "license", "license_name"),
    "licence_url": ("licence_url", "license_url"),
    "creator": ("creator", "author", "artist", "credit"),
    "page_url": ("page_url", "host_page_url", "source_url"),
}
_SCORES = ("score", "similarity", "aesthetic", "pwatermark", "punsafe", "probability")


def caption_of(record: Mapping[str, Any]) -> str | None:
    """The first text that may be a caption, on one line; the first of several.

    >>> caption_of({"text": "a  cat"})
    'a cat'
    """
    lower = {name.lower(): value for name, value in record.items()}
    for name in CAPTION_COLUMNS:
        value = lower.get(name)
        if isinstance(value, list) and value:
            value = value[0]
        if isinstance(value, str) and value.strip():
            return " ".join(value.split())
    return None


def origin_of(record: Mapping[str, Any]) -> dict[str, str]:
    """Where a picture is from and under what licence, and the scores that it has, as text.

    >>> origin_of({"URL": "http://a/b.jpg", "license": "CC0", "watermark_score": 0.25, "id": 7})
    {'url': 'http://a/b.jpg', 'licence': 'CC0', 'watermark_score': '0.25'}
    """
    lower = {name.lower(): value for name, value in record.items()}
    origin = {}
    for name, columns in _ORIGIN.items():
        value = next((lower[each] for each in columns if lower.get(each)), None)
        if value is not None:
            origin[name] = str(value)
    for name, value in lower.items():
        if is_score(name) and isinstance(value, (int, float)) and not isinstance(value, bool):
            origin[name] = f"{value:.6g}"
    return origin


def is_score(name: str) -> bool:
    """Whether a column judges the picture or its caption."""
    return any(each in name.lower() for each in _SCORES)
