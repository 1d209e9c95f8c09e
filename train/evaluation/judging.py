"""Which metric a task is judged by."""

from functools import partial

from fourmill.manifests import agreement
from fourmill.manifests.errors import MissingPackageError
from fourmill.manifests.labels import Encoding, Label
from fourmill.manifests.modalities import Kind, Modality
from fourmill.manifests.snapshots import VersionEntry
from fourmill.train.evaluation.boxes import BoxMetric
from fourmill.train.evaluation.captions import CaptionMetric
from fourmill.train.evaluation.classes import ClassMetric
from fourmill.train.evaluation.depth import DepthMetric
from fourmill.train.evaluation.metric import MeanScore, Metric, Scores
from fourmill.train.evaluation.networks import feature_network
from fourmill.train.evaluation.normals import NormalMetric
from fourmill.train.evaluation.pictures import FeatureNetwork, PictureMetric
from fourmill.train.evaluation.settings import Settings
from fourmill.train.evaluation.tasks import Task

_BOX_SIDE = 224  # of crops of boxes that no model of pixels tells the side of
_RELATIVE_LEAST = 0.01  # of the largest relative depth: errors of less say nothing


class Judge:
    """Makes as many metrics of a task as there are predictors to compare.

    Attributes:
        notes: what could not be measured, and why.

    Args:
        truth: the version that the truths come from.

    Raises:
        MissingPackageError: the task's metric needs a package that is not installed.
    """

    def __init__(self, task: Task, truth: VersionEntry, settings: Settings) -> None:
        self._task, self._settings = task, settings
        self._is_relative = truth.encoding == Encoding()
        self._network: FeatureNetwork | None = None
        self.notes: list[str] = []
        if task.predicted.kind is Kind.IMAGE:
            try:
                self._network = feature_network()
            except MissingPackageError as error:
                self.notes.append(f"no Frechet distance: {error}")
        self.metric()  # what is missing is said before anything is predicted

    def metric(self, predicted: Modality | None = None) -> Metric:
        """A metric that nothing was added to.

        Args:
            predicted: definition of what is judged, where that is not the model's.
        """
        task, settings = self._task, self._settings
        judged = predicted or task.predicted
        match task.predicted.kind:
            case Kind.DEPTH:
                return DepthMetric(settings.alignments, _RELATIVE_LEAST * self._is_relative)
            case Kind.NORMAL:
                return NormalMetric()
            case Kind.CLASSES:
                return ClassMetric(task.truth, judged, settings.ignored)
            case Kind.BOXES:
                return BoxMetric(_BOX_SIDE)
            case Kind.TEXT:
                return CaptionMetric()
            case Kind.IMAGE:
                return PictureMetric(self._network)
            case kind:
                measure = partial(_agreement, task.truth, judged)
                return MeanScore(measure, agreement.HEADLINES[kind])


def _agreement(before: Modality, after: Modality, truth: Label, predicted: Label) -> Scores:
    return agreement.compare(before, truth, after, predicted).measures
