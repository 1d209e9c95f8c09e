"""Predictions beside labels, as one picture."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fourmill.manifests.labels import Label
from fourmill.manifests.modalities import Masking, modality
from fourmill.manifests.render import render, sheet
from fourmill.train.predict import Predictions
from fourmill.train.sampler import Sampler


def draw_panels(predictions: Predictions, inputs: Sequence[str], size: int = 128) -> Image.Image:
    """Two rows a sample: its labels, and below them what the model predicts from the inputs.

    Args:
        size: pixels of the side of one picture.
    """
    rows, titles = [], []
    for index, key in enumerate(predictions.keys):
        image = predictions.images[index]
        centre = Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)
        labels = [np.asarray(centre)]
        predicted = [np.full((size, size, 3), 255, np.uint8)]
        for each in predictions.by_target.values():
            label, guess = each.labels[index], each.predicted[index]
            labels.append(render(each.definition, label, size, image))
            predicted.append(render(each.definition, guess, size, image, like=label))
        rows += [labels, predicted]
        titles += [f"{key}\nlabels", "predicted"]
    columns = ["centre crop", *predictions.by_target]
    title = f"Held-out samples: labels, and what is predicted from {', '.join(inputs)} alone"
    return sheet(rows, columns, titles, title)


def picture(
    sampler: Sampler, name: str, label: Label | None, size: int, like: Label | None = None
) -> UInt8[np.ndarray, "size size 3"]:
    """What a model is given, or gives back, as a square picture.

    Args:
        name: of the modality, as `Sampler.resolve` takes it.
        label: of what its tokens encode, or the tokens.
        size: pixels of a side.
        like: see `render`.
    """
    is_known = name in sampler.domains.names
    chosen = name if is_known else sampler.resolve(name)
    definition = sampler.domains.modality(chosen)
    if definition.masking is Masking.PIXELS or isinstance(label, str):
        kind = "caption" if isinstance(label, str) else "rgb"
        return render(modality(kind), label, size)
    if isinstance(label, np.ndarray) and label.ndim == 1 and label.dtype.kind == "i":
        label = sampler.decode(chosen, label[None])[0]
    return render(sampler.stored(chosen), label, size, like=like)
