"""Networks of transformers that say what a picture shows, always with the same words."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from fourmill.labelers.base import Labeler, Sample
from fourmill.labelers.transformers_network import Tensors, TransformersNetwork
from fourmill.manifests.errors import SampleError
from fourmill.manifests.labels import Label


class Captioner(Labeler):
    """An expert whose only modality is a caption of its own; the source's `caption` stays.

    Captions are the most likely of a beam search, never drawn.

    Attributes:
        model: name of the class in transformers.
        prompt: what the network is asked, or how its sentence begins; `""` for nothing.
        most_word_pieces: of a caption.
        repeats_prompt: whether the network's answer begins with all that it was given.
        half: the floating-point type on a GPU.
    """

    model: ClassVar[str]
    prompt: ClassVar[str] = ""
    most_word_pieces: ClassVar[int] = 60
    num_beams: ClassVar[int] = 3
    repeats_prompt: ClassVar[bool] = False
    half: ClassVar[str] = "float16"

    def load(self, device: str) -> None:
        self._network = TransformersNetwork(
            self.spec, device, self.model, "AutoProcessor", half=self.half
        )

    def label(self, batch: Sequence[Sample]) -> list[Mapping[str, Label] | SampleError]:
        (modality,) = self.spec.writes
        inputs = [self.inputs(self._network, sample) for sample in batch]
        return [{modality: each} for each in self._network.run(inputs, self._captions)]

    def inputs(self, network: TransformersNetwork, sample: Sample) -> Tensors:
        """Picture and prompt as the network reads them."""
        text = {"text": self.prompt} if self.prompt else {}
        return network.inputs(images=network.pixels(sample["rgb"]), **text)

    def _captions(self, batch: Tensors) -> list[str]:
        words = self._network.model.generate(
            **batch, max_new_tokens=self.most_word_pieces, num_beams=self.num_beams, do_sample=False
        )
        begin = batch["input_ids"].shape[1] if self.repeats_prompt else 0
        texts = self._network.processor.batch_decode(words[:, begin:], skip_special_tokens=True)
        return [" ".join(text.split()) for text in texts]
