"""Captions as T5 reads them: a vector for each word piece, an input of 4M-21."""

from collections.abc import Mapping, Sequence

import numpy as np

from fourmill.labelers.base import Labeler, LabelerSpec, Resources, Sample
from fourmill.labelers.transformers_network import Tensors, TransformersNetwork
from fourmill.manifests.errors import SampleError
from fourmill.manifests.hub import HubWeights
from fourmill.manifests.labels import Label

_MOST_WORD_PIECES = 77  # as `t5_caption` has it


class T5(Labeler):
    """The last states of the encoder of T5 v1.1 XXL, the end of the text included.

    A sample of 77 word pieces is 630 kB.
    """

    spec = LabelerSpec(
        name="t5",
        version=1,
        reads=("caption",),
        writes=("t5_caption",),
        summary="4,096 features a word piece of the caption, by the encoder of T5 v1.1 XXL",
        licence="Apache-2.0",
        citation="Raffel et al. 2020, T5, arXiv:1910.10683",
        hub=HubWeights("google/t5-v1_1-xxl", "3db67ab1af984cf10548a73467f0e5bca2aaaeb2"),
        weights_mb=44_500,
        requires={"sentencepiece": "t5"},
        resources=Resources(gpus=1.0, memory_gib=24.0, batch_size=32),
    )

    def load(self, device: str) -> None:
        # bfloat16: its activations are beyond the range of float16
        self._network = TransformersNetwork(
            self.spec, device, "T5EncoderModel", "AutoTokenizer", half="bfloat16"
        )

    def label(self, batch: Sequence[Sample]) -> list[Mapping[str, Label] | SampleError]:
        inputs = [
            self._network.inputs(
                text=sample["caption"], truncation=True, max_length=_MOST_WORD_PIECES
            )
            for sample in batch
        ]
        return [{"t5_caption": each} for each in self._network.run(inputs, self._forward)]

    def _forward(self, batch: Tensors) -> list[np.ndarray]:
        states = self._network.model(**batch).last_hidden_state
        limit = float(np.finfo(np.float16).max)
        return [each.float().clamp(-limit, limit).half().cpu().numpy() for each in states]


LABELER = T5
