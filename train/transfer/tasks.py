"""What can be learned on top of an encoder: its outputs, loss, and measures of the literature.

Shapes: B samples, K outputs, S side of a crop in pixels.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor
from torch.nn import functional as F

from fourmill.manifests import dense_agreement
from fourmill.manifests.errors import ConfigError
from fourmill.manifests.label_checks import UNKNOWN_CLASS
from fourmill.manifests.modalities import Kind, Modality
from fourmill.tokenize import metrics as measures
from fourmill.train.transfer.config import DepthConfig, FinetuneConfig
from fourmill.train.transfer.intervals import bootstrap_interval

Sums = Float64[Tensor, " numbers"]
"""Of a batch, which add up over batches and processes."""

_DEPTH_SUMS = ("images", "abs_rel", "delta1", "rmse")
_NORMAL_SUMS = ("pixels", "degrees", "within_11", "within_22", "within_30")
_WITHIN = (11.25, 22.5, 30.0)
_SHORT = 0.5  # of a normal's vector: what is shorter is unknown
_BERHU = 0.2  # of an image's largest error, above which errors are squared (Laina et al. 2016)
_SAME_SHIFT = 0.85  # how much an error common to an image is forgiven (Eigen et al. 2014)


class Task(ABC):
    """What is learned.

    Attributes:
        outputs: numbers an image or a pixel.
        is_dense: an answer for each pixel.
    """

    outputs: int
    is_dense = True

    @abstractmethod
    def known(self, target: Tensor) -> Int64[Tensor, ""]:
        """How many answers of a batch can be judged: images, or pixels whose truth is known."""

    @abstractmethod
    def loss(self, outputs: Tensor, target: Tensor) -> Float[Tensor, ""]:
        """What is made small, as a sum over what is known; finite also where nothing is.

        The parts of a batch add up to the batch, however it is split.
        """

    @abstractmethod
    def sums(self, outputs: Tensor, target: Tensor) -> Sums:
        """What `metrics` are made of."""

    @abstractmethod
    def metrics(self, sums: Sums) -> dict[str, float]:
        """The measures, of all batches."""

    @abstractmethod
    def error(self, metrics: Mapping[str, float]) -> float:
        """What the best checkpoint has least of."""


class Classification(Task):
    """One class an image."""

    is_dense = False

    def __init__(self, outputs: int, label_smoothing: float) -> None:
        self.outputs, self._smoothing = outputs, label_smoothing

    def known(self, target: Tensor) -> Int64[Tensor, ""]:
        return target.new_full((), len(target), dtype=torch.int64)

    def loss(
        self, outputs: Float[Tensor, "B K"], target: Int64[Tensor, " B"] | Float[Tensor, "B K"]
    ) -> Float[Tensor, ""]:
        """Cross-entropy; targets that were mixed are smoothed already."""
        smoothing = 0.0 if target.ndim == 2 else self._smoothing
        return F.cross_entropy(
            outputs.float(), target, label_smoothing=smoothing, reduction="sum"
        )  # fmt: skip

    def sums(self, outputs: Float[Tensor, "B K"], target: Int64[Tensor, " B"]) -> Sums:
        best = outputs.topk(min(5, self.outputs), dim=1).indices == target[:, None]
        hits = torch.bincount(target[best[:, 0]], minlength=self.outputs)
        count = torch.bincount(target, minlength=self.outputs)
        return torch.cat([best.sum()[None], hits, count]).double()

    def metrics(self, sums: Sums) -> dict[str, float]:
        """`top1` with its 95 % interval, `top5`, and `balanced`, the mean over classes."""
        top5, (hits, count) = float(sums[0]), sums[1:].view(2, -1)
        total, right = int(count.sum()), int(hits.sum())
        low, high = bootstrap_interval(right, total)
        occurs = count > 0
        return {
            "top1": right / total, "top1_low": low, "top1_high": high, "top5": top5 / total,
            "balanced": float((hits[occurs] / count[occurs]).mean()), "samples": total,
        }  # fmt: skip

    def error(self, metrics: Mapping[str, float]) -> float:
        return 1 - metrics["top1"]


class Segmentation(Task):
    """One class a pixel; 255 is unknown."""

    def __init__(self, outputs: int) -> None:
        self.outputs = outputs

    def known(self, target: Tensor) -> Int64[Tensor, ""]:
        return (target != UNKNOWN_CLASS).sum()

    def loss(self, outputs: Tensor, target: Tensor) -> Float[Tensor, ""]:
        """Cross-entropy of known pixels."""
        return F.cross_entropy(
            outputs.float(), target.long(), ignore_index=UNKNOWN_CLASS, reduction="sum"
        )  # fmt: skip

    def sums(self, outputs: Tensor, target: Tensor) -> Sums:
        ids, found = target.long(), outputs.argmax(1)
        known = ids != UNKNOWN_CLASS
        pairs = ids[known] * self.outputs + found[known]
        return torch.bincount(pairs, minlength=self.outputs**2).double()

    def metrics(self, sums: Sums) -> dict[str, float]:
        """`mean_iou` over classes that occur, and the `accuracy` of pixels."""
        table = sums.view(self.outputs, self.outputs)
        hits, occurs = table.diagonal(), table.sum(1) > 0
        union = table.sum(0) + table.sum(1) - hits
        return {
            "mean_iou": float((hits[occurs] / union[occurs]).mean()),
            "accuracy": float(hits.sum() / table.sum()),
        }

    def error(self, metrics: Mapping[str, float]) -> float:
        return 1 - metrics["mean_iou"]


class Depth(Task):
    """Depth of each pixel, in the dataset's unit; outputs are its logarithm."""

    outputs = 1

    def __init__(self, config: DepthConfig) -> None:
        self._config = config

    def known(self, target: Tensor) -> Int64[Tensor, ""]:
        return self._known(target).sum()

    def loss(self, outputs: Float[Tensor, "B 1 S S"], target: Tensor) -> Float[Tensor, ""]:
        """Of pixels whose depth is known; what compares pixels compares those of one image."""
        known = self._known(target)
        log, depth = outputs[:, 0].float(), torch.where(known, target.float(), 1.0)
        if self._config.loss == "scale_invariant":
            difference = torch.where(known, log - depth.log(), 0.0).flatten(1)
            count = known.flatten(1).sum(1)
            mean, square = (each.sum(1) / count.clamp(min=1)
                            for each in (difference, difference.square()))  # fmt: skip
            return (count * (square - _SAME_SHIFT * mean.square() + 1e-8).sqrt()).sum()
        error = torch.where(known, (log.clamp(max=20).exp() - depth).abs(), 0.0).flatten(1)
        if self._config.loss == "l1":
            return error.sum()
        limit = (_BERHU * error.detach().amax(1, keepdim=True)).clamp(min=1e-6)
        squared = (error.square() + limit**2) / (2 * limit)
        return torch.where(error <= limit, error, squared).sum()

    def sums(self, outputs: Float[Tensor, "B 1 S S"], target: Tensor) -> Sums:
        total = torch.zeros(len(_DEPTH_SUMS), dtype=torch.float64)
        guesses = outputs[:, 0].float().clamp(max=20).exp().cpu()
        for guess, depth, known in zip(
            guesses, target.float().cpu(), self._known(target).cpu(), strict=True
        ):
            if bool(known.any()):
                total += torch.tensor([1.0, *self._of_one(guess, depth, known)])
        return total.to(outputs.device)

    def metrics(self, sums: Sums) -> dict[str, float]:
        """`delta1`, the share within a factor of 1.25; `abs_rel`; `rmse`: means over images."""
        means = dict(zip(_DEPTH_SUMS, (sums / sums[0]).tolist(), strict=True))
        return {name: means[name] for name in ("delta1", "abs_rel", "rmse")}

    def error(self, metrics: Mapping[str, float]) -> float:
        return metrics["abs_rel"]

    def _of_one(self, guess: Tensor, depth: Tensor, known: Tensor) -> list[float]:
        if self._config.aligned:
            found = dense_agreement.depths(depth.numpy(), guess.numpy())
            fitted = torch.from_numpy(
                dense_agreement.fit(depth.double().numpy(), guess.double().numpy())
            )
            rmse = (fitted - depth)[known].square().mean().sqrt()
            return [found["abs_rel"], found["delta1"], float(rmse)]
        ours, theirs = guess[known].double(), depth[known].double()
        error = (ours - theirs).abs()
        ratio = torch.maximum(ours / theirs, theirs / ours)
        return [
            float((error / theirs).mean()), float((ratio < 1.25).double().mean()),
            float(error.square().mean().sqrt()),
        ]  # fmt: skip

    def _known(self, target: Tensor) -> Tensor:
        return target.isfinite() & (target > self._config.min_depth)


class Normals(Task):
    """The direction of the surface at each pixel; labels of `Kind.NORMAL`, short ones unknown."""

    outputs = 3

    def known(self, target: Tensor) -> Int64[Tensor, ""]:
        return self._vectors(target)[1].sum()

    def loss(self, outputs: Float[Tensor, "B 3 S S"], target: Tensor) -> Float[Tensor, ""]:
        """One less the cosine, of pixels whose normal is known."""
        truth, known = self._vectors(target)
        cosine = F.cosine_similarity(outputs.float(), truth, dim=1)
        return ((1 - cosine) * known).sum()

    def sums(self, outputs: Float[Tensor, "B 3 S S"], target: Tensor) -> Sums:
        truth, known = self._vectors(target)
        angles = measures.degrees(outputs.float(), truth * known[:, None]).double()
        shares = [(angles < most).double().sum() for most in _WITHIN]
        count = angles.new_tensor(float(len(angles)))
        return torch.stack([count, angles.sum(), *shares])

    def metrics(self, sums: Sums) -> dict[str, float]:
        """Mean angle in degrees, and the shares within some, over all known pixels."""
        means = dict(zip(_NORMAL_SUMS, (sums / sums[0]).tolist(), strict=True))
        return {
            "mean_degrees": means["degrees"],
            **{f"{name}_degrees": means[name] for name in _NORMAL_SUMS[2:]},
        }

    def error(self, metrics: Mapping[str, float]) -> float:
        return metrics["mean_degrees"]

    @staticmethod
    def _vectors(target: Tensor) -> tuple[Float[Tensor, "B 3 S S"], Tensor]:
        vectors = target.float().movedim(-1, 1) / 127.5 - 1
        return vectors, vectors.norm(dim=1) > _SHORT


_KINDS = {"segmentation": Kind.CLASSES, "depth": Kind.DEPTH, "normals": Kind.NORMAL}


def make_task(config: FinetuneConfig, label: Modality | None, names: tuple[str, ...]) -> Task:
    """The task of a configuration.

    Args:
        label: the dense modality that is the truth.
        names: of the classes.

    Raises:
        ConfigError: a modality that holds no such thing.
    """
    if label is None:
        return Classification(len(names), config.label_smoothing)
    wanted = _KINDS[config.task]
    if label.kind is not wanted:
        raise ConfigError(
            f"label: {label.name} is {label.kind.value}, and {config.task} is learned from "
            f"{wanted.value}"
        )
    if config.task == "segmentation":
        return Segmentation(label.channels)
    return Depth(config.depth) if config.task == "depth" else Normals()
