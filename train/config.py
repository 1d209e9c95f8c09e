"""The configuration of a training run: the section `train` of a run's YAML file.

`root` and `tokenizers` stand at the top of the file, where the pipeline reads them too. Unknown
keys are errors that suggest the nearest name. Nothing here needs torch.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fourmill.manifests import configs
from fourmill.manifests.errors import ConfigError
from fourmill.manifests.hashing import sha256_of

Count = int | tuple[int, int]
"""A number, or the least and the most of it, drawn evenly for each sample."""

KeepLaw = Literal["random", "all", "binary"]


def _range(count: Count) -> tuple[int, int]:
    return (count, count) if isinstance(count, int) else count


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Mixture(_Section):
    """One component of the mixture of Dirichlet distributions."""

    weight: float = Field(
        default=1.0, gt=0, description="how often it is drawn, relative to the others"
    )
    inputs: dict[str, float] = Field(
        default={"*": 0.5},
        description="alpha by modality, `*` for all others; 0 never gives any token",
    )
    targets: dict[str, float] = Field(default={"*": 0.5}, description="as `inputs`, of the targets")
    keep: dict[str, KeepLaw] = Field(
        default={}, description="law of what spans keep of text-like inputs: random, all, binary"
    )

    def keep_of(self, name: str) -> str:
        """The law of a modality."""
        return self.keep.get(name, self.keep.get("*", "random"))


class MaskingConfig(_Section):
    """What is chosen of each sample, as inputs and as targets."""

    law: Literal["faithful", "efficient"] = Field(
        default="efficient", description="as published, or without the padding that it leaves"
    )
    input_tokens: Count = Field(
        default=128, description="tokens that the encoder sees, or (least, most)"
    )
    target_tokens: Count = Field(default=128, description="tokens that the decoder predicts")
    mixture: tuple[Mixture, ...] = Field(
        default=(Mixture(),),
        min_length=1,
        description="what the budgets of modalities are drawn from",
    )

    @property
    def input_range(self) -> tuple[int, int]:
        """Least and most inputs."""
        return _range(self.input_tokens)

    @property
    def target_range(self) -> tuple[int, int]:
        """Least and most targets."""
        return _range(self.target_tokens)

    @model_validator(mode="after")
    def _ordered(self) -> "MaskingConfig":
        for low, high in (self.input_range, self.target_range):
            if not 1 <= low <= high:
                raise ValueError(f"token budgets from {low} to {high} are not possible")
        return self


class ModelConfig(_Section):
    """Size and variant of the model."""

    preset: str | None = Field(
        default=None, description="tiny, small, base, large or xlarge: the sizes"
    )
    dim: int = Field(default=256, ge=4, description="width")
    heads: int = Field(default=4, ge=1, description="attention heads")
    encoder_depth: int = Field(default=4, ge=1, description="blocks of the encoder")
    decoder_depth: int = Field(default=4, ge=1, description="blocks of the decoder")
    mlp_ratio: float = Field(default=4.0, gt=0, description="hidden over outer width of the MLPs")
    gated: bool = Field(default=True, description="SwiGLU rather than GELU")
    bias: bool = Field(default=False, description="biases in linear layers and norms")
    qk_norm: bool = Field(default=False, description="layer norm on queries and keys")
    registers: int = Field(default=0, ge=0, description="register tokens of the encoder")
    share_text_embeddings: bool = Field(
        default=True,
        description="one table for all text-like modalities, which have one vocabulary",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_preset(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("preset") is None:
            return values
        name = values["preset"]
        if name not in PRESETS:
            raise ValueError(f"there is no preset {name!r}; known: {', '.join(PRESETS)}")
        return {**PRESETS[name], **values}


PRESETS: dict[str, dict[str, int]] = {
    "tiny": {"dim": 384, "heads": 6, "encoder_depth": 6, "decoder_depth": 6},
    "small": {"dim": 512, "heads": 8, "encoder_depth": 8, "decoder_depth": 8},
    "base": {"dim": 768, "heads": 12, "encoder_depth": 12, "decoder_depth": 12},
    "large": {"dim": 1024, "heads": 16, "encoder_depth": 24, "decoder_depth": 24},
    "xlarge": {"dim": 2048, "heads": 32, "encoder_depth": 24, "decoder_depth": 24},
}
"""The published sizes."""


class Source(_Section):
    """One of several datasets."""

    root: str = Field(description="dataset root, any fsspec URL")
    weight: float = Field(default=1.0, gt=0, description="how often, relative to the others")


class TrainConfig(_Section):
    """Everything `fourmill train` does."""

    root: str = Field(description="dataset root, any fsspec URL")
    datasets: tuple[Source, ...] = Field(
        default=(),
        description="train on these, by weight; `root` then says what tokens are, and is evaluated "
        "on; default: on `root`",
    )
    fraction: float = Field(
        default=1.0, gt=0, le=1, description="of the samples that are trained on, always the same"
    )
    where: str | None = Field(
        default=None,
        description="modality of marks (`fourmill mark`): train on those samples alone that it "
        "keeps; with `datasets`, in each of them",
    )
    shuffle_shards: int | None = Field(
        default=None,
        ge=1,
        description="shuffle among so many shards at a time, for datasets in an object store that "
        "are larger than the cache; default: among all",
    )
    tokenizers: Path = Field(description="folder of the trained tokenizers")
    out: Path = Field(description="folder of the run: checkpoints, metrics")
    inputs: tuple[str, ...] | None = Field(
        default=None,
        description="modalities that can be inputs; default: all of the dataset's tokens",
    )
    targets: tuple[str, ...] | None = Field(
        default=None, description="modalities that can be targets; default: all tokens"
    )
    pixel_patch: int = Field(
        default=16, ge=1, description="patch of inputs like rgb@112, in pixels"
    )
    model: ModelConfig = ModelConfig()
    masking: MaskingConfig = MaskingConfig()
    init_from: str | None = Field(
        default=None,
        description="checkpoint, run or hub id whose weights the run starts from",
    )
    loss: Literal["mod_global", "mod_rank", "token", "token_vocab"] = Field(
        default="mod_global",
        description="mean over modalities, of the whole step or of each part of it (published "
        "runs), or over targets",
    )
    steps: int = Field(default=1000, ge=1, description="optimizer steps")
    batch_size: int = Field(default=64, ge=1, description="samples a step, of all processes")
    micro_batch: int | None = Field(
        default=None,
        ge=1,
        description="samples that a process computes at once; default: its whole share",
    )
    optimizer: Literal["adamw", "muon"] = Field(
        default="adamw", description="muon: for the blocks' matrices, AdamW for the rest"
    )
    lr: float = Field(default=1e-3, gt=0, description="highest learning rate")
    min_lr: float = Field(default=0.0, ge=0, description="learning rate at the end")
    schedule: Literal["cosine", "wsd", "inverse_sqrt"] = Field(
        default="cosine", description="of the learning rate after the warm-up"
    )
    warmup: int = Field(default=50, ge=0, description="steps in which the learning rate rises")
    cooldown: int = Field(
        default=0, ge=0, description="last steps, in which wsd and inverse_sqrt fall to min_lr"
    )
    weight_decay: float = Field(
        default=0.05, ge=0, description="of all parameters with two dimensions"
    )
    betas: tuple[float, float] = Field(default=(0.9, 0.95), description="of AdamW")
    clip: float | None = Field(default=1.0, gt=0, description="highest norm of the gradient")
    ema: float = Field(
        default=0.0, ge=0, lt=1, description="decay of the averaged weights, 0 for none"
    )
    seed: int = Field(default=0, description="of weights, order, crops and masks")
    eval_every: int = Field(default=100, ge=1, description="steps between evaluations on `val`")
    checkpoint_every: int = Field(default=100, ge=1, description="steps between checkpoints")
    eval_samples: int | None = Field(
        default=None, ge=1, description="of `val` that are evaluated on; default: all"
    )
    keep_checkpoints: int = Field(default=2, ge=1, description="how many of the last ones are kept")
    log_every: int = Field(default=10, ge=1, description="steps between lines of metrics.jsonl")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="of activations; auto: bfloat16 on GPUs and on CPUs with matrix units for it",
    )
    device: str = Field(
        default="auto", description="cpu, cuda, cuda:1; auto: a GPU if there is one"
    )
    threads: int | None = Field(default=None, ge=1, description="CPU threads; default: all")
    compile: bool = Field(default=False, description="torch.compile the model and its loss")
    packed: bool = Field(
        default=False, description="leave padding out of the computation; for the faithful law"
    )
    recompute: bool = Field(
        default=False, description="activation checkpointing: less memory, a third more work"
    )
    sharding: Literal["none", "fsdp"] = Field(
        default="none", description="of weights and optimizer over the processes"
    )
    tensorboard: bool = Field(default=False, description="write event files beside metrics.jsonl")
    wandb: str | None = Field(default=None, description="project of Weights & Biases to log to")
    pixel_cache_mib: int = Field(default=2048, ge=0, description="memory for decoded crops")
    cache: Path | None = Field(
        default=None,
        description="folder for shards of object stores; default: in ~/.cache/fourmill",
    )
    cache_gib: float = Field(default=100.0, gt=0, description="most that it holds")

    @model_validator(mode="after")
    def _possible(self) -> "TrainConfig":
        if self.shuffle_shards is not None and self.fraction < 1:
            raise ValueError("a fraction is drawn from all shards: leave shuffle_shards out")
        if self.optimizer == "muon" and self.sharding != "none":
            raise ValueError("muon needs whole matrices: take sharding none, or optimizer adamw")
        if self.packed and self.compile:
            raise ValueError("packed batches differ in shape, and cannot be compiled: take one")
        return self

    @property
    def identity(self) -> str:
        """SHA-256 of what decides the result: a run can be resumed with the same one only."""
        value = self.model_dump(mode="json", exclude=set(_INCIDENTAL))
        if self.where is None:  # it came later: runs begun before it go on
            del value["where"]
        return sha256_of(value | {"weights": [each.weight for each in self.datasets]})


_INCIDENTAL = (
    "root", "datasets", "tokenizers", "out", "keep_checkpoints", "log_every", "checkpoint_every",
    "pixel_cache_mib", "cache", "cache_gib", "micro_batch", "device", "threads", "compile",
    "packed", "recompute", "sharding", "tensorboard", "wandb",
)  # fmt: skip


def load_train_config(path: Path, overrides: Mapping[str, Any] | None = None) -> TrainConfig:
    """The configuration in a run's YAML file.

    Args:
        overrides: options of the section, by dotted names, which win over the file's.

    Raises:
        ConfigError: no such file, not YAML, no section, an unknown key (the nearest is named), a
            wrong value.
    """
    loaded = configs.read_yaml(path)
    if not isinstance(loaded.get("train"), dict):
        raise ConfigError(f"{path}: has no section `train`")
    outer = {name: loaded[name] for name in ("root", "tokenizers") if name in loaded}
    section = {**outer, **loaded["train"]}
    for dotted, value in (overrides or {}).items():
        configs.assign(section, dotted, value)
    return configs.validate(TrainConfig, section, str(path), "train")
