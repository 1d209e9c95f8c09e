"""The configuration of a fine-tuning: the file of `fourmill finetune`. Nothing here needs torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fourmill.manifests import configs
from fourmill.train.records import Settings

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Classes = dict[str, tuple[str, ...]]
"""Patterns of file names (`animals/*`) by class; the first class that one of a label's matches."""

TaskName = Literal["classification", "segmentation", "depth", "normals"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LoraConfig(_Section):
    """Adapters instead of training all weights of the encoder."""

    rank: Count = Field(default=8, description="of the adapters")
    alpha: float | None = Field(
        default=None, gt=0, description="strength, in ranks; by default the rank"
    )
    dropout: Share = Field(default=0.0, description="of what adapters read")
    layers: tuple[str, ...] = Field(
        default=("qkv", "proj", "gate_up", "fc1", "fc2"),
        min_length=1,
        description="last names of the adapted matrices",
    )


class HeadConfig(_Section):
    """What answers for every pixel: ConvNeXt blocks on finer maps."""

    width: Count = Field(default=384, description="channels of the finer maps")
    finer: Count = Field(default=4, description="cells along the side of a patch")
    depth: int = Field(default=4, ge=0, description="ConvNeXt blocks")


class DepthConfig(_Section):
    """How depth is learned and judged."""

    loss: Literal["berhu", "l1", "scale_invariant"] = Field(
        default="berhu", description="of metric depth, or of its logarithm (scale_invariant)"
    )
    min_depth: float = Field(
        default=1e-3, gt=0, description="depth of less is unknown; in the dataset's unit"
    )
    aligned: bool = Field(
        default=False,
        description="judge after the scale and shift that fit best, for depth that is relative",
    )


class AugmentConfig(_Section):
    """What is done to pictures of `train`."""

    min_scale: float = Field(
        default=0.2, gt=0, le=1, description="least share of the picture in a crop"
    )
    flip: bool = Field(default=True, description="mirror half of the crops")
    policy: Literal["none", "rand", "trivial"] = Field(
        default="none", description="RandAugment or TrivialAugment of torchvision"
    )
    jitter: float = Field(
        default=0.0, ge=0, le=1, description="of brightness, contrast and saturation"
    )
    erasing: float = Field(default=0.0, ge=0, le=1, description="how often a box is erased")


class FinetuneConfig(Settings):
    """Everything `fourmill finetune` does."""

    incidental: ClassVar[tuple[str, ...]] = (
        "root", "out", "keep_checkpoints", "log_every", "checkpoint_every", "device", "threads",
        "readers", "recompute",
    )  # fmt: skip

    model: str = Field(description="run, checkpoint, file or hub id of a trained 4M")
    weights: Literal["model", "average"] = Field(
        default="model", description="average for the averages that a run with `ema` keeps"
    )
    start: Path | None = Field(
        default=None,
        description="folder of a finished fine-tuning whose encoder it starts from, such as one on "
        "more classes",
    )
    root: str = Field(description="dataset root, any fsspec URL; trains on its split `train`")
    judge_on: str = Field(
        default="val", description="split that it is judged on; `test` where sets have no `val`"
    )
    out: Path = Field(description="folder of the run: checkpoints, metrics, result.json")
    task: TaskName = Field(default="classification", description="what is learned")
    label: str = Field(
        description="modality with the truth; for classes also a place in it, source.file"
    )
    classes: Classes = Field(
        default={}, description="patterns by class; by default every text is a class of its own"
    )
    mask: str | None = Field(
        default=None,
        description="modality of one channel that is above 127 where dense labels are valid",
    )
    others: tuple[str, ...] = Field(
        default=(), description="token modalities that the encoder reads beside the pixels"
    )
    size: Count | None = Field(
        default=None, description="side of the crops, in pixels; by default the model's"
    )
    pooling: Literal["mean", "registers"] = Field(
        default="mean", description="what classes are told from"
    )
    head: HeadConfig = HeadConfig()
    depth: DepthConfig = DepthConfig()
    augment: AugmentConfig = AugmentConfig()
    lora: LoraConfig | None = Field(default=None, description="low-rank adapters on the encoder")
    drop_path: Share = Field(default=0.0, description="of the last block, falling to the first")
    layer_decay: float = Field(
        default=0.75, gt=0, le=1, description="of the learning rate, from a block to the one before"
    )
    label_smoothing: Share = Field(default=0.1, description="of classes")
    mixup: float = Field(default=0.0, ge=0, description="alpha; 0 for none")
    cutmix: float = Field(default=0.0, ge=0, description="alpha; 0 for none")
    steps: Count = Field(default=1000, description="optimizer steps")
    batch_size: Count = Field(default=64, description="samples a step, of all processes")
    micro_batch: Count | None = Field(
        default=None, description="samples computed at once; default: a process's whole share"
    )
    warmup: int = Field(default=50, ge=0, description="steps in which the learning rate rises")
    betas: tuple[float, float] = Field(default=(0.9, 0.999), description="of AdamW")
    ema: float = Field(
        default=0.0, ge=0, lt=1, description="of the weights' moving average, which is judged"
    )
    seed: int = Field(default=0, ge=0, description="of weights, order, crops and draws")
    eval_every: Count = Field(default=200, description="steps between evaluations on `val`")
    checkpoint_every: Count = Field(default=200, description="steps between checkpoints")
    log_every: Count = Field(default=20, description="steps between lines of metrics.jsonl")
    readers: int = Field(
        default=0, ge=0, description="processes that read pictures; 0: the training itself does"
    )
    recompute: bool = Field(
        default=False, description="activation checkpointing: less memory, a third more work"
    )

    @model_validator(mode="after")
    def _fits(self) -> "FinetuneConfig":
        if self.judge_on == "train":
            raise ValueError("judge_on: `train` is learned from: name another split")
        is_dense = self.task != "classification"
        if is_dense and (self.mixup or self.cutmix or self.classes):
            raise ValueError(f"mixup, cutmix and classes are for classification, not {self.task}")
        if is_dense and (self.augment.policy != "none" or self.augment.erasing):
            raise ValueError(f"policy and erasing would move pictures, and not their {self.task}")
        if not is_dense and self.mask:
            raise ValueError("a mask is for dense tasks")
        if self.others and (self.mixup or self.cutmix):
            raise ValueError("tokens cannot be mixed: leave mixup and cutmix out, or others")
        return self


def load_config(path: Path, overrides: Mapping[str, Any] | None = None) -> FinetuneConfig:
    """The configuration in a YAML file.

    Args:
        overrides: options by dotted names, which win over the file's.

    Raises:
        ConfigError: no such file, not YAML, an unknown key (the nearest is named), a wrong value.
    """
    return configs.load(FinetuneConfig, path, overrides)
