"""The best, the median and the worst samples of a task, as one picture."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from fourmill.manifests.dense_agreement import scale_and_shift
from fourmill.manifests.labels import Label
from fourmill.manifests.modalities import Kind
from fourmill.manifests.render import render, sheet
from fourmill.tokenize.crops import crop_dense
from fourmill.train.evaluation.contest import Judged, Result, truth_of
from fourmill.train.evaluation.ensembles import combine
from fourmill.train.evaluation.evaluator import Evaluator
from fourmill.train.evaluation.report import ordered

_SIDE = 192  # pixels of the side of one picture
_EACH = 2  # samples of the best, of the middle, of the worst


def draw_panel(evaluator: Evaluator, result: Result) -> Image.Image | None:
    """A row a sample: its crop, the truth, and the model's prediction, which is made again.

    `None` where no sample has a score.
    """
    task = result.task
    split = evaluator.split(task)
    rows, titles = [], []
    for title, judged in chosen(ordered(result)):
        sample = split.sample(judged.place)
        assert sample is not None
        drawn = combine(task.predicted.kind, evaluator.predict(task, [sample])[0])
        image = crop_dense(sample.image, Kind.IMAGE, sample.crop, sample.image_size, _SIDE)[0]
        truth = truth_of(task, sample)
        shown = _comparable(task.predicted.kind, drawn, truth)
        rows.append(
            [
                np.asarray(image),
                render(task.truth, truth, _SIDE, image),
                render(task.predicted, shown, _SIDE, image, like=_range(truth)),
            ]
        )
        titles.append(
            f"{title}\n{result.headline} {judged.scores[result.headline]:.3g}\n{judged.key}"
        )
    if not rows:
        return None
    what = f"{task.name} from {', '.join(sorted(task.inputs))}"
    return sheet(rows, ["centre crop", task.truth.name, "predicted"], titles, what)


def chosen(ranked: Sequence[Judged]) -> list[tuple[str, Judged]]:
    """Some of the best, of the middle and of the worst, each once, with what to call them."""
    count = len(ranked)
    each = min(_EACH, max(1, count // 3))
    middle = max(0, count // 2 - each // 2)
    places = {
        "best": range(min(each, count)),
        "worst": range(max(0, count - each), count),
        "median": range(middle, min(middle + each, count)),
    }
    titles: dict[int, str] = {}
    for title, numbers in places.items():
        for place in numbers:
            titles.setdefault(place, title)
    return [(title, ranked[place]) for place, title in sorted(titles.items())]


def _range(truth: Label) -> Label | None:
    """What gives its range to the colours of a prediction."""
    return truth if isinstance(truth, np.ndarray) else None


def _comparable(kind: Kind, predicted: Label, truth: Label) -> Label:
    """Depth in the truth's unit, as it is judged; other predictions as they are."""
    if kind is not Kind.DEPTH:
        return predicted
    assert isinstance(predicted, np.ndarray)
    assert isinstance(truth, np.ndarray)
    known = truth > 0
    scale, shift = scale_and_shift(*(each[known].astype(np.float64) for each in (truth, predicted)))
    depth: Label = np.maximum(scale * predicted + shift, 0).astype(np.float32)
    return depth
