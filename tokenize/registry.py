"""From a folder to the tokenizer in it, of whatever kind.

`spec`, `weights_sha256` and `decoding_sha256` read files alone, so that a plan needs no networks.
"""

import hashlib
import importlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fourmill.manifests.errors import ConfigError, UnknownNameError
from fourmill.manifests.hashing import sha256_of
from fourmill.tokenize.base import CONTROLNET, SPEC_FILE, Tokenizer, TokenizerSpec
from fourmill.tokenize.folders import whole_folder

if TYPE_CHECKING:
    from fourmill.tokenize.vocabulary import Vocabulary
    from fourmill.tokenize.words import WordTokenizer

_CLASSES = {
    "vq": ("vq", "VQTokenizer"),
    "vq-encoder": ("vq", "EncoderOnlyTokenizer"),
    "diffusion": ("diffused", "DiffusionTokenizer"),
    "controlled": ("controlled", "ControlledTokenizer"),
    "vectors": ("vectors", "VectorTokenizer"),
    "text": ("text", "TextTokenizer"),
    "boxes": ("boxes", "BoxesTokenizer"),
    "palette": ("palette", "PaletteTokenizer"),
    "metadata": ("metadata", "MetadataTokenizer"),
    "poses": ("poses", "PosesTokenizer"),
    "instances": ("instances", "SamInstancesTokenizer"),
    "masks": ("masks", "MaskTokenizer"),
}
_TEXT_KINDS = {
    "caption": "text", "det": "boxes", "color_palette": "palette", "metadata": "metadata",
    "human_poses": "poses", "sam_instance": "instances", "instances": "instances",
}  # fmt: skip
_CODED = ("human_poses", "sam_instance", "instances")
_WRITTEN_AS = {"instances": "sam_instance"}  # what is written in the words of another
PUBLISHER = "EPFL-VILAB/"
"""How the ids of tokenizers that belong to the reference implementation begin."""

_SETTINGS = "config.json"  # of published weights
_DIGESTED = (SPEC_FILE, "model.safetensors", "vocabulary.json")
_WEIGHTS = (".json", ".safetensors")  # in a folder that diffusers wrote


def load(place: Path | str, size: int | None = None) -> Tokenizer:
    """The tokenizer that was saved there, on the CPU.

    Args:
        place: a folder that a tokenizer was saved into, or weights published for the reference
            implementation: `EPFL-VILAB/4M_tokenizers_…` or a copy of it (`tokenize/published.py`).
        size: side of the crops in pixels, where it is to be another than the tokenizer's own
            (published ones: 224); tokenizers with a grid of tokens alone.

    Raises:
        ConfigError: there is none, it is damaged, or it cannot have that size.
        MissingPackageError: published weights are not here and cannot be fetched.
    """
    if _is_published(place):
        from fourmill.tokenize import published

        return published.load(place, size=size or published.SIZE)
    folder = Path(place)
    found = spec(folder)
    tokenizer: Tokenizer = _class_of(found.kind).load(folder, found)
    if tokenizer.spec != found:
        raise ConfigError(f"{folder}: {SPEC_FILE} and the files beside it do not belong together")
    return tokenizer if size is None else _at_size(tokenizer, size)


def spec(folder: Path) -> TokenizerSpec:
    """What is known of the tokenizer without its weights.

    Raises:
        ConfigError: there is none, or its `spec.json` is damaged.
    """
    path = folder / SPEC_FILE
    if not path.is_file():
        raise ConfigError(
            f"{folder}: no tokenizer here (no {SPEC_FILE}); `fourmill tokenizer train` makes one"
        )
    try:
        return TokenizerSpec(**json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not the description of a tokenizer: {error}") from error


def weights_sha256(folder: Path) -> str:
    """Digest of all that decides what the tokens mean; logs of the training are no part of it.

    Args:
        folder: that a tokenizer was saved into, or a copy of a published one.

    Raises:
        ConfigError: no tokenizer is there.
    """
    is_published = _is_published(folder)
    if not is_published:
        spec(folder)
    return _digest(folder, (*_DIGESTED, *([_SETTINGS] if is_published else [])))


def decoding_sha256(folder: Path) -> str:
    """Digest of all that decides what the tokens mean and are decoded to: `weights_sha256`, with
    the ControlNet where one leads the decoder.

    A ControlNet is no part of the lineage of tokens: they are the same whatever it is.

    Raises:
        ConfigError: no tokenizer is there.
    """
    tokens = weights_sha256(folder)
    controlnet = folder / CONTROLNET
    names = sorted(
        each.relative_to(folder).as_posix()
        for each in controlnet.rglob("*")
        if each.suffix in _WEIGHTS
    )
    return sha256_of([tokens, _digest(folder, names)]) if names else tokens


def _digest(folder: Path, names: Iterable[str]) -> str:
    """Of the files of those names that are there."""
    digest = hashlib.sha256()
    for name in names:
        if (folder / name).is_file():
            with (folder / name).open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{name} {content}\n".encode())
    return digest.hexdigest()


def text_token_name(name: str) -> str:
    """What the tokens of a text-like modality are called.

    >>> text_token_name("caption"), text_token_name("instances")
    ('tok_caption', 'tok_sam_instance')
    """
    return f"tok_{_WRITTEN_AS.get(name, name)}"


def save_text_tokenizers(
    folder: Path,
    vocabulary: "Vocabulary",
    modalities: Sequence[str],
    min_score: float = 0.6,
    max_tokens: Mapping[str, int] | None = None,
    codecs: Mapping[str, Tokenizer] | None = None,
) -> dict[str, Path]:
    """Write a tokenizer of each text-like modality into `folder/tok_<modality>`.

    Args:
        modalities: some of caption, det, color_palette, metadata, human_poses, sam_instance (or
            instances, which has the same tokens), or others whose kind is text or boxes.
        min_score: of boxes.
        max_tokens: by modality, the end included; those of the reference where it says nothing.
        codecs: tokenizers of the codes that poses and instances are spelled with, by modality;
            human_poses goes without one.

    Returns:
        The folders by the names of the modalities.

    Raises:
        UnknownNameError: a modality that is not text-like.
        ConfigError: a modality without the codec that it needs, or with another; two whose tokens
            have one name.
    """
    from fourmill.manifests.modalities import modality, modality_names

    for name in codecs or {}:
        if name not in _CODED:
            raise UnknownNameError("modality that is written in codes", name, _CODED)
    if {"instances", "sam_instance"} <= set(modalities):
        raise ConfigError(
            "found instances and sam_instance, which both become tok_sam_instance: take "
            "sam_instance for masks that overlap, or instances for planes of numbers"
        )
    folders = {}
    for name in modalities:
        kind = _TEXT_KINDS.get(name)
        if kind is None and name in modality_names() and modality(name).kind in ("text", "boxes"):
            kind = modality(name).kind.value
        if kind is None:
            raise UnknownNameError("text-like modality", name, _TEXT_KINDS)
        config: dict[str, Any] = {"min_score": min_score} if kind == "boxes" else {}
        if name not in _TEXT_KINDS or name == "sam_instance":
            config["definition"] = modality(name)
        if codecs and name in codecs:
            config["codec"] = codecs[name]
        usual = modality(_WRITTEN_AS.get(name, name)).max_tokens
        length = (max_tokens or {}).get(name, usual)
        make: type[WordTokenizer] = _class_of(kind)
        tokenizer = make(vocabulary, length, **config)
        folders[name] = folder / tokenizer.spec.modality
        with whole_folder(folders[name]) as aside:
            tokenizer.save(aside)
    return folders


def _at_size(tokenizer: Tokenizer, size: int) -> Tokenizer:
    from fourmill.tokenize.vq import VQTokenizer

    if not isinstance(tokenizer, VQTokenizer):
        raise ConfigError(
            f"{tokenizer.spec.modality}: found size {size}, but its tokens have no size: they "
            "are no grid"
        )
    return tokenizer if size == tokenizer.spec.config["size"] else tokenizer.at_size(size)


def _is_published(place: Path | str) -> bool:
    path = Path(place)
    if path.is_dir():
        return not (path / SPEC_FILE).is_file() and (path / _SETTINGS).is_file()
    return str(place).startswith(PUBLISHER) or path.suffix in (".safetensors", ".pth")


def _class_of(kind: str) -> type[Any]:
    if kind not in _CLASSES:
        raise UnknownNameError("kind of tokenizer", kind, _CLASSES)
    module, name = _CLASSES[kind]
    return getattr(importlib.import_module(f"fourmill.tokenize.{module}"), name)  # type: ignore[no-any-return]
