"""Modalities: what each signal of a sample is called, how it is stored, and what 4M sees of it.

Names, vocabularies, token counts and folders are those of the reference implementation of 4M-7
and 4M-21 (Mizrahi et al. 2023, Bachmann et al. 2024), so that its loader and its published
weights fit. The set is open: `register` adds one, and `token_modality` derives the tokens of any
dense modality at any size.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from fourmill.manifests.class_names import ADE20K, COCO_PANOPTIC, NYU40
from fourmill.manifests.errors import ConfigError, UnknownNameError


class Kind(StrEnum):
    """What the value of one sample is; `labels.py` says its type, and how it is stored."""

    IMAGE = "image"  # uint8 [H, W, 3], RGB
    DEPTH = "depth"  # float32 [H, W], larger is farther
    NORMAL = "normal"  # uint8 [H, W, 3], unit vectors as 127.5 * (n + 1)
    EDGE = "edge"  # uint8 [H, W], 0..255
    PLANE = "plane"  # float32 [H, W], numbers in the range that the modality declares
    CLASSES = "classes"  # uint8 [H, W], class index, 255 = unknown
    INSTANCES = "instances"  # uint16 [H, W], 0 = none
    FEATURE_MAP = "features"  # float16 [C, h, w]
    VECTOR = "vector"  # float32 [C]
    SEQUENCE = "sequence"  # float16 [n, C], one vector a word piece
    TEXT = "text"  # str
    BOXES = "boxes"  # {"instances": [{"boxes", "class_name", "score"}]}
    STRUCTURE = "structure"  # JSON object or list with a schema of its own
    CROPS = "crops"  # int64 [crops, 5]: top, left, height, width, flip
    TOKENS = "tokens"  # int16 or int32 [crops, tokens] or [tokens]

    @property
    def is_dense(self) -> bool:
        """Whether the value covers the image's plane, so that crops cut out a part of it."""
        return self in _DENSE


_DENSE = frozenset({
    Kind.IMAGE, Kind.DEPTH, Kind.NORMAL, Kind.EDGE, Kind.PLANE, Kind.CLASSES, Kind.INSTANCES,
    Kind.FEATURE_MAP,
})  # fmt: skip


class Masking(StrEnum):
    """How 4M draws inputs and targets from a modality (the reference's four types)."""

    PIXELS = "pixels"  # patches of an image, input only
    IMAGE = "img"  # a grid of tokens: random positions
    SEQUENCE = "seq"  # text-like: spans with sentinels
    CHUNKS = "seq_chunks"  # text-like, spans of whole chunks (`metadata`)
    EMBEDDING = "seq_emb"  # a sequence of vectors, input only


@dataclass(frozen=True)
class Modality:
    """One kind of signal of a sample.

    A modality is stored (it has a `kind` and an `extension`), seen by the model (it has a
    `masking`), or both.

    Attributes:
        folder: its folder under the dataset root; `rgb@224` and `rgb@448` are both read from `rgb`.
        extension: of its members in a shard, without the dot.
        vocab_size: number of token ids, 0 for what has no tokens.
        max_tokens: most tokens of one sample.
        patch_size: pixels of the side of one token, at `input_size`.
        channels: of pixels, features or vectors; classes for `Kind.CLASSES`.
        token_of: for tokens, the modality that they encode.
        learned_positions: whether positions have learned rather than sine-cosine embeddings.
        classes: names of the class indices of a `Kind.CLASSES` modality.
        value_range: the lowest and the highest number of a `Kind.PLANE` modality, which has one.
        unit: of these numbers, for people: `°C`, `m`.

    Raises:
        ConfigError: a plane without a range, or a range of anything else.
    """

    name: str
    kind: Kind
    folder: str
    extension: str
    masking: Masking | None = None
    vocab_size: int = 0
    max_tokens: int = 0
    input_size: int = 0
    patch_size: int = 0
    channels: int = 0
    token_of: str | None = None
    learned_positions: bool = False
    classes: tuple[str, ...] = ()
    value_range: tuple[float, float] | None = None
    unit: str = ""

    def __post_init__(self) -> None:
        if (self.kind is Kind.PLANE) is not (self.value_range is not None):
            raise ConfigError(
                f"{self.name}: found {self.kind.value} with the range {self.value_range}; a plane "
                f"has a range [lowest, highest], and nothing else has one"
            )
        if self.value_range is not None:
            low, high = self.value_range
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ConfigError(
                    f"{self.name}: found the range {low:g} to {high:g}, expected finite numbers, "
                    f"the lowest first"
                )

    def record(self) -> dict[str, Any]:
        """All fields, for files and digests; those that came later only where they are set, so
        that what was written before them still reads the same."""
        return {
            name: value for name, value in asdict(self).items()
            if value or name not in _LATER_FIELDS
        }  # fmt: skip

    @staticmethod
    def of(record: Mapping[str, Any]) -> "Modality":
        """What `record` wrote, also after it was JSON.

        Raises:
            KeyError, TypeError, ValueError: it is no record of a modality.
        """
        masking, value_range = record["masking"], record.get("value_range")
        return Modality(
            **{
                **record,
                "kind": Kind(record["kind"]),
                "masking": Masking(masking) if masking else None,
                "classes": tuple(record["classes"]),
                "value_range": tuple(value_range) if value_range else None,
            }
        )

    @property
    def id(self) -> int:
        """The 15-bit number that labels this modality's tokens inside a forward pass.

        >>> modality("rgb@224").id, modality("tok_clip@224").id
        (20716, 11422)
        """
        return int(hashlib.sha256(self.name.encode()).hexdigest(), 16) % 2**15

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of an image-like modality's tokens."""
        side = self.input_size // self.patch_size
        return side, side

    @property
    def is_target(self) -> bool:
        """Whether 4M can predict it."""
        return self.masking in (Masking.IMAGE, Masking.SEQUENCE, Masking.CHUNKS)

    @property
    def pad_id(self) -> int:
        """The id that fills records up to one size; grids have nothing to fill."""
        return 0


_LATER_FIELDS = frozenset({"value_range", "unit"})

TEXT_VOCAB = 30_000
"""Size of the shared WordPiece vocabulary of all text-like modalities."""

COARSE_CLASSES = (
    "background", "wall", "floor", "ceiling", "door or window", "seat", "bed", "table", "storage",
    "appliance", "lamp", "decoration", "plant", "person", "animal", "vehicle", "food", "building",
    "sky", "ground", "object",
)  # fmt: skip
"""Classes of `semseg_coarse`, which the built-in `segments` expert makes."""


CAPTIONERS = ("blip", "blip2", "florence2")
"""Experts that write captions of their own, each as `caption_<name>`."""


def _stored(name: str, kind: Kind, extension: str, channels: int = 0, **more: object) -> Modality:
    return Modality(name, kind, name, extension, channels=channels, **more)  # type: ignore[arg-type]


def _pixels(size: int, patch: int) -> Modality:
    return Modality(
        f"rgb@{size}", Kind.IMAGE, "rgb", "jpg", Masking.PIXELS, 0, (size // patch) ** 2,
        size, patch, channels=3,
    )  # fmt: skip


def _text(name: str, kind: Kind, extension: str, max_tokens: int, chunks: bool = False) -> Modality:
    masking = Masking.CHUNKS if chunks else Masking.SEQUENCE
    return Modality(name, kind, name, extension, masking, TEXT_VOCAB, max_tokens)


def vector_tokens(name: str, of: str, vocab_size: int = 8192, num_tokens: int = 16) -> Modality:
    """The tokens of a modality of vectors, of a code book each; 4M sees them as a square.

    >>> vector_tokens("tok_dinov2_global", "DINOv2-B14-global").grid
    (4, 4)
    """
    side = math.isqrt(num_tokens)
    if side**2 != num_tokens:
        raise ConfigError(f"{name}: found {num_tokens} tokens, expected a square number of them")
    return Modality(
        name, Kind.TOKENS, name, "npy", Masking.IMAGE, vocab_size, num_tokens, side * 56, 56,
        token_of=of, learned_positions=True,
    )  # fmt: skip


def code_tokens(name: str, of: str, vocab_size: int, num_tokens: int) -> Modality:
    """Tokens that 4M sees in the words of another modality alone (poses, masks of instances)."""
    return Modality(
        name, Kind.TOKENS, name, "npy", None, vocab_size, num_tokens, token_of=of
    )  # fmt: skip


def token_modality(base: str, size: int, patch: int, vocab_size: int, of: str = "") -> Modality:
    """The tokens of the dense modality `of` (default: `base`), as `tok_<base>@<size>`.

    >>> token_modality("depth", 224, 16, 8192).max_tokens
    196
    """
    if size % patch:
        raise ConfigError(f"tok_{base}@{size}: size {size} is not a multiple of patch size {patch}")
    name = f"tok_{base}@{size}"
    return Modality(
        name, Kind.TOKENS, name, "npy", Masking.IMAGE, vocab_size, (size // patch) ** 2,
        size, patch, token_of=of or base,
    )  # fmt: skip


_BUILT_IN = (
    # what corpora bring and labelers make
    _stored("rgb", Kind.IMAGE, "jpg", 3),
    _stored("source", Kind.STRUCTURE, "json"),
    _stored("crop_settings", Kind.CROPS, "npy", 5),
    _stored("depth", Kind.DEPTH, "png", 1),
    _stored("normal", Kind.NORMAL, "png", 3),
    _stored("semseg_coco", Kind.CLASSES, "png", 134),
    _stored("semseg_coarse", Kind.CLASSES, "png", len(COARSE_CLASSES), classes=COARSE_CLASSES),
    _stored("canny_edge", Kind.EDGE, "png", 1),
    _stored("hed_edge", Kind.EDGE, "png", 1),
    _stored("sam_edge", Kind.EDGE, "png", 1),
    _stored("saliency", Kind.EDGE, "png", 1),
    _stored("CLIP-B16", Kind.FEATURE_MAP, "npy", 512),
    _stored("CLIP-B16-global", Kind.VECTOR, "npy", 512),
    _stored("SigLIP2-B16", Kind.FEATURE_MAP, "npy", 768),
    _stored("SigLIP2-B16-global", Kind.VECTOR, "npy", 768),
    _stored("DINOv2-B14", Kind.FEATURE_MAP, "npy", 768),
    _stored("ImageBind-H14", Kind.FEATURE_MAP, "npy", 1280),
    _stored("vit_s_focus", Kind.FEATURE_MAP, "npy", 384),
    _stored("vit_s_focus_layers", Kind.FEATURE_MAP, "npy", 4 * 384),
    _stored("DINOv2-B14-global", Kind.VECTOR, "npy", 768),
    _stored("ImageBind-H14-global", Kind.VECTOR, "npy", 1280),
    _stored("imagenet_features", Kind.VECTOR, "npy", 1280),
    _stored("imagenet", Kind.STRUCTURE, "json"),
    _stored("clip_score", Kind.STRUCTURE, "json"),
    _stored("human_keypoints", Kind.STRUCTURE, "json"),
    _stored("instances", Kind.INSTANCES, "png", 1),
    # parts of what 4M sees: 23 rotations of a body's joints, and an instance's mask in its box
    _stored("body_pose", Kind.VECTOR, "npy", 23 * 9),
    _stored("sam_mask", Kind.EDGE, "png", 1),
    # text-like, beside what 4M has
    *(_text(f"caption_{name}", Kind.TEXT, "txt", 256) for name in CAPTIONERS),
    _text("grounding", Kind.BOXES, "json", 256),
    _text("ocr", Kind.BOXES, "json", 256),
    # what is known exactly of composites and rendered rooms
    _stored("truth_depth", Kind.DEPTH, "png", 1),
    _stored("truth_normal", Kind.NORMAL, "png", 3),
    _stored(
        "truth_semseg_coarse", Kind.CLASSES, "png", len(COARSE_CLASSES), classes=COARSE_CLASSES
    ),
    _stored("truth_instances", Kind.INSTANCES, "png", 1),
    _stored("truth_det", Kind.BOXES, "json"),
    # what people wrote and measured in the public sets that models are judged by
    _stored("truth_semseg_coco", Kind.CLASSES, "png", len(COCO_PANOPTIC), classes=COCO_PANOPTIC),
    _stored("truth_semseg_ade20k", Kind.CLASSES, "png", len(ADE20K), classes=ADE20K),
    _stored("truth_semseg_nyu40", Kind.CLASSES, "png", len(NYU40), classes=NYU40),
    _stored("truth_imagenet", Kind.STRUCTURE, "json"),
    _stored("truth_captions", Kind.STRUCTURE, "json"),
    # what 4M-7 and 4M-21 see
    _pixels(224, 16),
    _pixels(448, 16),
    _text("caption", Kind.TEXT, "txt", 256),
    _text("det", Kind.BOXES, "json", 256),
    _text("metadata", Kind.STRUCTURE, "json", 40, chunks=True),
    _text("human_poses", Kind.STRUCTURE, "json", 275),
    _text("color_palette", Kind.STRUCTURE, "json", 23),
    _text("sam_instance", Kind.STRUCTURE, "json", 290),
    Modality(
        "t5_caption", Kind.SEQUENCE, "t5_caption", "npz", Masking.EMBEDDING, 0, 77, channels=4096
    ),
    token_modality("rgb", 224, 16, 16_384),
    token_modality("depth", 224, 16, 8_192),
    token_modality("normal", 224, 16, 8_192),
    token_modality("semseg", 224, 16, 4_096, of="semseg_coco"),
    token_modality("clip", 224, 16, 8_192, of="CLIP-B16"),
    token_modality("canny_edge", 224, 16, 8_192),
    token_modality("sam_edge", 224, 16, 8_192),
    token_modality("dinov2", 224, 14, 8_192, of="DINOv2-B14"),
    token_modality("imagebind", 224, 14, 8_192, of="ImageBind-H14"),
    vector_tokens("tok_dinov2_global", "DINOv2-B14-global"),
    vector_tokens("tok_imagebind_global", "ImageBind-H14-global"),
    token_modality("rgb", 448, 16, 16_384),
    token_modality("depth", 448, 16, 8_192),
    token_modality("normal", 448, 16, 8_192),
    token_modality("semseg", 448, 16, 4_096, of="semseg_coco"),
    token_modality("clip", 448, 16, 8_192, of="CLIP-B16"),
)

PARTS: Mapping[str, str] = {"body_pose": "human_poses", "sam_mask": "sam_instance"}
"""Modalities whose tokens 4M sees in the words of another one alone, and that one, whose labels
hold several of them."""

FOURM_7 = (
    "rgb@224", "caption", "det", "tok_rgb@224", "tok_depth@224", "tok_normal@224",
    "tok_semseg@224", "tok_clip@224",
)  # fmt: skip
"""Modalities of 4M-7; `rgb@224` is input only."""

FOURM_21 = (
    *FOURM_7, "t5_caption", "metadata", "human_poses", "color_palette", "sam_instance",
    "tok_canny_edge@224", "tok_sam_edge@224", "tok_dinov2@224", "tok_imagebind@224",
    "tok_dinov2_global", "tok_imagebind_global",
)  # fmt: skip
"""Modalities of 4M-21; `rgb@224` and `t5_caption` are input only."""

_registry: dict[str, Modality] = {}


def register(modality: Modality) -> Modality:
    """Make a modality known under its name; the same definition again is no error.

    Raises:
        ConfigError: the name means something else already, or its id is another modality's.
    """
    known = _registry.get(modality.name)
    if known is not None and known != modality:
        raise ConfigError(f"modality {modality.name!r} is already defined differently: {known}")
    for other in _registry.values():
        if other.id == modality.id and other.name != modality.name:
            raise ConfigError(
                f"modality {modality.name!r} has the same 15-bit id as {other.name!r}: rename it"
            )
    _registry[modality.name] = modality
    return modality


def modality(name: str) -> Modality:
    """The modality of that name.

    Raises:
        UnknownNameError: nobody registered it; the message names the nearest.
    """
    if name not in _registry:
        raise UnknownNameError("modality", name, _registry)
    return _registry[name]


def modality_names() -> list[str]:
    """All known names, sorted."""
    return sorted(_registry)


for _each in _BUILT_IN:
    register(_each)
