"""The configuration of a pipeline run: one YAML file, read into these models.

Unknown keys are errors that suggest the nearest name. Relative paths are relative to the working
directory. The section `train` belongs to the trainer and is passed over here.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from fourmill.manifests import configs
from fourmill.manifests.modality_files import ModalityFile, declare_in, losses_of


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FilterConfig(_Section):
    """What of a corpus is left out; each is listed with its reason, as failed samples are."""

    min_side: int = Field(default=0, ge=0, description="pixels that the short side has at least")
    max_aspect: float = Field(
        default=0, ge=0, description="most long side / short side; 0 for any (then not below 1)"
    )
    min_scores: dict[str, float] = Field(
        default_factory=dict,
        description="least value by score of the corpus, such as clip_similarity_vitl14",
    )
    max_scores: dict[str, float] = Field(
        default_factory=dict, description="greatest value by score, such as watermark_score"
    )
    duplicates: int | None = Field(
        default=None,
        ge=0,
        le=4,
        description="leave out near duplicates: most of 64 bits of the perceptual hash that differ",
    )


class DownloadConfig(_Section):
    """How the pictures of a list of URLs are fetched."""

    keep: str | None = Field(
        default=None,
        description="where answers are kept as they came, any fsspec URL; none: in the dataset",
    )
    connections: int = Field(default=64, ge=1, description="at once, in one process")
    per_host: int = Field(
        default=2, ge=1, description="connections to one host at once, in one process"
    )
    shards_at_once: int = Field(
        default=4, ge=1, description="processes that fetch, on all machines together"
    )
    timeout_seconds: float = Field(default=20, gt=0, description="for one attempt")
    retries: int = Field(default=2, ge=0, description="attempts after the first, where they help")
    backoff_seconds: float = Field(
        default=1, ge=0, description="pause before the second attempt, doubled each time"
    )
    max_wait_seconds: float = Field(
        default=60, ge=0, description="longest pause that a host may ask for (Retry-After)"
    )
    max_bytes: int = Field(default=20_000_000, ge=1, description="larger answers are refused")
    obey_opt_outs: bool = Field(
        default=True, description="leave out what X-Robots-Tag or TDM-Reservation reserves"
    )
    allow: tuple[str, ...] = Field(
        default=(), description="networks besides the public internet, such as 10.0.0.0/8"
    )
    user_agent: str = Field(
        default="fourmill", min_length=1, description="the name we go by; add an address of yours"
    )


class CorpusConfig(_Section):
    """Where the images come from, what is left out, and how they are cut into shards."""

    sources: tuple[str, ...] = Field(
        description="folders, tars, parquet files, lists of URLs (any fsspec URL), "
        "builtin:NAME?option=value, or a public set and its folder, such as coco:/data/coco"
    )
    samples_per_shard: int = Field(default=1000, ge=1, description="items per shard")
    held_out: float = Field(
        default=0.05,
        ge=0,
        lt=1,
        description="share held out for validation, where a source knows no split",
    )
    seed: int = Field(
        default=0, description="seed of the order of samples and of the held-out share"
    )
    max_side: int = Field(
        default=0,
        ge=0,
        description="larger pictures are scaled down to this long side, in pixels; 0 keeps all "
        "bytes as they are",
    )
    licence: str = Field(default="", description="of samples whose source names none")
    labels: tuple[str, ...] = Field(
        default=(),
        description="modalities whose labels lie beside the pictures: a.NAME.npy of a.jpg",
    )
    filters: FilterConfig = FilterConfig()
    download: DownloadConfig = DownloadConfig()


class LabelConfig(_Section):
    """Which experts label the corpus."""

    labelers: tuple[str, ...] = Field(description="names; `fourmill labelers` lists them")
    max_side: int = Field(
        default=512, ge=32, description="pixels of the long side that labelers see"
    )
    keep: tuple[str, ...] = Field(
        default=(), description="transient modalities to store all the same"
    )


class TextTokenizerConfig(_Section):
    """The shared WordPiece vocabulary, and the modalities written in it."""

    vocab_size: int = Field(
        default=30_000, ge=4_400, description="most ids; fewer if the corpus is small"
    )
    modalities: tuple[str, ...] = Field(
        default=("caption", "det", "metadata", "color_palette"), description="text-like modalities"
    )
    max_tokens: dict[str, int] = Field(
        default_factory=dict, description="most tokens by modality, else the reference's"
    )
    min_score: float = Field(
        default=0.6, ge=0, le=1, description="boxes below this score are left out"
    )
    codecs: dict[str, str] = Field(
        default_factory=dict,
        description="tokenizers of poses and masks that human_poses and sam_instance (or "
        "instances) are written with, by modality: a folder or a published id",
    )


class ImageTokenizerConfig(_Section):
    """One VQ tokenizer of a dense modality."""

    modality: str = Field(description="what it encodes: rgb, depth, vit_s_focus, …")
    size: int = Field(default=224, ge=8, description="pixels of the side of a crop")
    patch: int = Field(default=16, ge=1, description="pixels of the side of a token")
    vocab_size: int = Field(default=8192, ge=2, description="entries of the code book")
    max_samples: int = Field(
        default=2000, ge=1, description="training samples, the first of the split"
    )
    training: dict[str, Any] = Field(
        default_factory=dict, description="options of the tokenizer's training (VQTrainConfig)"
    )


class TokenizeConfig(_Section):
    """Crops, tokenizers, and where tokenizers are kept."""

    num_crops: int = Field(
        default=4, ge=1, description="crops per sample; the first is the centre, unflipped"
    )
    min_crop_scale: float = Field(
        default=0.4, gt=0, le=1, description="least share of the image in a crop"
    )
    seed: int = Field(default=0, description="seed of the crops")
    text: TextTokenizerConfig = TextTokenizerConfig()
    images: tuple[ImageTokenizerConfig, ...] = ()


class RunConfig(_Section):
    """Everything `fourmill run` does, in order: ingest, label, train tokenizers, tokenize."""

    modalities: tuple[ModalityFile, ...] = Field(
        default=(), description="modalities of one's own: paths of YAML files, or what they hold"
    )
    root: str = Field(description="dataset root, any fsspec URL")
    tokenizers: Path = Field(description="folder of the trained tokenizers")
    corpus: CorpusConfig
    label: LabelConfig
    tokenize: TokenizeConfig = TokenizeConfig()
    address: str | None = Field(
        default=None, description="Ray cluster to use, none for this machine"
    )
    train: dict[str, Any] | None = Field(
        default=None, description="read by `fourmill train`, not here"
    )


def load_config(path: Path, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """The configuration in a YAML file, with top-level or dotted overrides.

    Its modalities are known from then on, and stand in it in full; losses that they name are those
    of their tokenizers.

    Raises:
        ConfigError: no such file, not YAML, an unknown key (the nearest is named), a wrong value.
    """
    loaded = configs.read_yaml(path)
    for dotted, value in (overrides or {}).items():
        configs.assign(loaded, dotted, value)
    declare_in(loaded, str(path))
    return _with_losses(configs.validate(RunConfig, loaded, str(path)))


def _with_losses(config: RunConfig) -> RunConfig:
    losses = losses_of(config.modalities)
    if not losses:
        return config
    images = [
        each.model_copy(update={"training": {"losses": losses[each.modality], **each.training}})
        if each.modality in losses
        else each
        for each in config.tokenize.images
    ]
    tokenize = config.tokenize.model_copy(update={"images": tuple(images)})
    return config.model_copy(update={"tokenize": tokenize})
