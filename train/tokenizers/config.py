"""The configuration of a tokenizer's training: the file of `fourmill tokenizer train`.

Nothing here needs torch.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fourmill.manifests import configs
from fourmill.manifests.modality_files import LossName, ModalityFile, declare_in, losses_of
from fourmill.train.records import Settings

Count = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _GridNetwork(_Section):
    """What has transformers over a grid of tokens."""

    dim: int = Field(default=384, ge=4, multiple_of=4, description="width of the transformers")
    heads: Count = Field(default=6, description="attention heads; divides dim")

    @model_validator(mode="after")
    def _heads_divide(self) -> "_GridNetwork":
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not a multiple of the {self.heads} heads")
        return self


class VQNetwork(_GridNetwork):
    """A grid of codes between transformers, for all that covers a picture."""

    kind: Literal["vq"] = "vq"
    encoder_depth: int = Field(default=4, ge=0, description="blocks of the encoder")
    decoder_depth: int = Field(default=4, ge=0, description="blocks of the decoder")
    reach: int = Field(
        default=0, ge=0, description="tokens around each that its decoding starts from"
    )
    latent: Count = Field(default=32, description="width of the codes")
    codes: Count = Field(default=1024, description="size of the code book, the vocabulary")
    levels: tuple[Annotated[int, Field(ge=2)], ...] = Field(
        default=(),
        description="of finite scalar quantization, instead of a code book: their product is the "
        "vocabulary, and there are as many latents",
    )
    start: Literal["data", "random"] = Field(
        default="data",
        description="weights from principal components and k-means of some crops, or at random",
    )


class VectorNetwork(_Section):
    """Parallel code books between MLPs, for one vector a picture."""

    kind: Literal["vectors"] = "vectors"
    dim: Count = Field(default=512, description="width of the MLPs")
    encoder_depth: int = Field(default=4, ge=0, description="blocks of the encoder")
    decoder_depth: int = Field(default=4, ge=0, description="blocks of the decoder")
    expansion: Count = Field(default=4, description="width inside of a block, in widths")
    latent: Count = Field(default=128, description="width of what is coded; a multiple of books")
    books: Count = Field(
        default=16, description="code books, and tokens; a square number, or the 8 of poses"
    )
    codes: Count = Field(default=1024, description="codes of each book, the vocabulary")
    temperature: tuple[float, float] = Field(
        default=(1.0, 0.3), description="of the draws of codes, at the first and the last step"
    )


class DiffusionNetwork(_GridNetwork):
    """A grid of codes after a transformer, and a network that makes pictures of noise and codes."""

    kind: Literal["diffusion"] = "diffusion"
    encoder_depth: int = Field(default=4, ge=0, description="blocks of the encoder")
    latent: Count = Field(default=32, description="width of the codes")
    codes: Count = Field(default=1024, description="size of the code book, the vocabulary")
    decoder: dict[str, Any] = Field(
        default={}, description="fields of the denoiser's configuration, see docs/tokenizers.md"
    )
    diffusion: dict[str, Any] = Field(
        default={}, description="fields of DiffusionConfig: betas, steps, predicts, zero_snr"
    )
    cap: float | None = Field(
        default=None, gt=0, description="highest weight of a step, its ratio of signal to noise"
    )


class ControlledNetwork(_Section):
    """A ControlNet, by which a frozen diffusion model draws what another tokenizer's codes say."""

    kind: Literal["controlled"] = "controlled"
    tokenizer: Path = Field(
        description="folder of what makes the tokens; it stays as it is, but for its decoder"
    )
    drawing: dict[str, Any] = Field(
        description="what draws: model, revision, side, guidance, sampling; docs/tokenizers.md"
    )
    controlnet: Path | None = Field(
        default=None, description="folder of one to go on from; by default the model's first half"
    )


class PerceptualConfig(_Section):
    """A loss between features of a network of timm, for pictures (after Johnson et al. 2016)."""

    network: str = Field(description="name in timm, such as vit_base_patch16_clip_224.openai")
    weights: Path | None = Field(
        default=None, description="file of its weights; by default from timm's hub or its cache"
    )
    weight: float = Field(default=1.0, gt=0, description="beside the other losses")
    layers: tuple[int, ...] = Field(
        default=(), description="which of the network's feature maps; all by default"
    )


class TokenizerTrainConfig(Settings):
    """Everything `fourmill tokenizer train` does."""

    incidental: ClassVar[tuple[str, ...]] = (
        "modalities", "root", "out", "keep_checkpoints", "log_every", "checkpoint_every", "readers",
    )  # fmt: skip

    modalities: tuple[ModalityFile, ...] = Field(
        default=(), description="modalities of one's own: paths of YAML files, or what they hold"
    )
    root: str = Field(description="dataset root, any fsspec URL")
    out: Path = Field(
        description="folder of the run: checkpoints, metrics and, in the end, the tokenizer"
    )
    modality: str = Field(description="what is tokenized; the dataset stores it")
    name: str | None = Field(
        default=None, description="what its tokens are called, tok_<name>; the modality by default"
    )
    size: Count = Field(default=224, description="side of a crop, in pixels")
    patch: Count = Field(default=16, description="side of a token, in pixels of the picture")
    network: VQNetwork | VectorNetwork | DiffusionNetwork | ControlledNetwork = Field(
        default=VQNetwork(), discriminator="kind", description="kind and shape"
    )
    losses: dict[LossName, float] | None = Field(
        default=None,
        description="weights of l1, l2, smooth_l1, cross_entropy, cosine; by default those "
        "that the modality's file names, or by kind",
    )
    perceptual: PerceptualConfig | None = None
    mask: str | None = Field(
        default=None,
        description="modality of one channel that is above 127 where labels are valid",
    )
    commitment: float = Field(
        default=1.0, ge=0, description="weight of what keeps latents near their codes"
    )
    code_decay: float = Field(default=0.99, gt=0, lt=1, description="of codes' moving averages")
    restart_below: float = Field(
        default=1 / 32, ge=0, description="share of an even use below which a code is replaced"
    )
    min_crop_scale: float = Field(
        default=0.4, gt=0, le=1, description="least share of the picture in a crop"
    )
    steps: Count = Field(default=10_000, description="optimizer steps")
    batch_size: Count = Field(default=64, description="crops a step, over all processes")
    warmup: int = Field(default=500, ge=0, description="steps in which the learning rate rises")
    betas: tuple[float, float] = Field(default=(0.9, 0.99), description="of AdamW")
    ema: float = Field(
        default=0.999,
        ge=0,
        lt=1,
        description="of the weights' moving average, which becomes the tokenizer; 0 for none",
    )
    seed: int = Field(default=0, ge=0, description="of weights, order, crops and draws")
    eval_samples: int = Field(default=64, ge=0, description="held-out samples that are judged")
    eval_every: Count = Field(default=1000, description="steps between two evaluations")
    checkpoint_every: Count = Field(default=500, description="steps between checkpoints")
    log_every: Count = Field(default=50, description="steps between lines of metrics.jsonl")
    readers: Count = Field(default=4, description="threads that read and crop labels")
    compile: bool = Field(default=False, description="torch.compile the network")

    @model_validator(mode="after")
    def _fits(self) -> "TokenizerTrainConfig":
        if self.size % self.patch:
            raise ValueError(f"size {self.size} is not a multiple of patch {self.patch}")
        if self.network.kind != "vq" and (self.perceptual or self.mask):
            raise ValueError("perceptual and mask are for networks of kind vq")
        if self.network.kind == "controlled" and self.compile:
            raise ValueError("compile is for networks of other kinds than controlled")
        return self


def load_config(path: Path, overrides: Mapping[str, Any] | None = None) -> TokenizerTrainConfig:
    """The configuration in a YAML file.

    Its modalities are known from then on, and stand in it in full; losses that the file of the
    tokenized one names are the training's, unless the configuration has its own.

    Args:
        overrides: options by dotted names, which win over the file's.

    Raises:
        ConfigError: no such file, not YAML, an unknown key (the nearest is named), a wrong value.
    """
    values = configs.read_yaml(path)
    for dotted, value in (overrides or {}).items():
        configs.assign(values, dotted, value)
    declare_in(values, str(path))
    config = configs.validate(TokenizerTrainConfig, values, str(path))
    named = losses_of(config.modalities).get(config.modality)
    return config if config.losses or not named else config.model_copy(update={"losses": named})
