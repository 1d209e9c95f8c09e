"""One tokenizer for grids of several sizes: `tok_rgb@224` makes and decodes `tok_rgb@448` too."""

from collections.abc import Iterator, Mapping

from fourmill.manifests.errors import ConfigError
from fourmill.manifests.modalities import Masking
from fourmill.tokenize.base import Tokenizer
from fourmill.tokenize.vq import VQTokenizer
from fourmill.train.domains import Domains


class ManySizes(Mapping[str, Tokenizer]):
    """The tokenizers of a model's modalities; a grid that none is for gets the one of the same
    name at another size, resized when it is asked for.

    Args:
        found: tokenizers that there are, by modalities of the model.
    """

    def __init__(self, found: Mapping[str, Tokenizer], domains: Domains) -> None:
        self._found = found
        self._resized: dict[str, Tokenizer] = {}
        self._domains = domains
        self._sources: dict[str, str] = {}
        grids = [each for each in domains.modalities if each.masking is Masking.IMAGE]
        for each in grids:
            base, at, _ = each.name.partition("@")
            others = [
                other for other in grids
                if at and other.name in found and other.name.startswith(f"{base}@")
                and (other.vocab_size, other.patch_size) == (each.vocab_size, each.patch_size)
            ]  # fmt: skip
            if each.name not in found and others:
                # the nearest size: fewest of its positions are made up
                nearest = min(others, key=lambda other: abs(other.input_size - each.input_size))
                self._sources[each.name] = nearest.name

    def __getitem__(self, name: str) -> Tokenizer:
        if name not in self._sources:
            return self._found[name]
        if name not in self._resized:
            other, size = self._found[self._sources[name]], self._domains.modality(name).input_size
            if not isinstance(other, VQTokenizer):
                raise ConfigError(f"{other.spec.modality}: cannot be of another size, as {name} is")
            self._resized[name] = other.at_size(size)
        return self._resized[name]

    def __contains__(self, name: object) -> bool:
        return name in self._found or name in self._sources

    def __iter__(self) -> Iterator[str]:
        yield from self._found
        yield from self._sources

    def __len__(self) -> int:
        return len(self._found) + len(self._sources)
