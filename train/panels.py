"""Predictions beside labels, as one picture."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from fourmill.manifests.render import render, sheet
from fourmill.train.predict import Predictions


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
