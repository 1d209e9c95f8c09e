"""How well a caption fits its picture, by CLIP."""

from collections.abc import Mapping, Sequence

from fourmill.labelers.base import Labeler, LabelerSpec, Resources, Sample
from fourmill.labelers.open_clip_network import CITATION, LICENCE, WEIGHTS, WEIGHTS_MB, OpenCLIP
from fourmill.manifests.errors import SampleError
from fourmill.manifests.labels import Label


class CLIPScore(Labeler):
    """`{"score": cosine}` of the image's vector and the caption's, -1 to 1.

    Larger is a better fit; cosines of unlike things are far from 0 too, so that a threshold is best
    chosen by looking at a corpus' own histogram. Of long captions the first 75 word pieces count.
    """

    spec = LabelerSpec(
        name="clip-score",
        version=1,
        reads=("rgb", "caption"),
        writes=("clip_score",),
        summary="cosine of image and caption, by CLIP ViT-B/16",
        licence=LICENCE,
        citation=f"Hessel et al. 2021, CLIPScore, arXiv:2104.08718; {CITATION}",
        hub=WEIGHTS,
        weights_mb=WEIGHTS_MB,
        requires={"open_clip": "clip"},
        resources=Resources(gpus=0.25, memory_gib=2.0, batch_size=64),
    )

    def load(self, device: str) -> None:
        self._network = OpenCLIP(self.spec, device)

    def label(self, batch: Sequence[Sample]) -> list[Mapping[str, Label] | SampleError]:
        images = self._network.image_vectors([sample["rgb"] for sample in batch])
        texts = self._network.text_vectors([sample["caption"] for sample in batch])
        cosines = [float(image @ text) for image, text in zip(images, texts, strict=True)]
        return [{"clip_score": {"score": round(each, 4) + 0.0}} for each in cosines]


LABELER = CLIPScore
