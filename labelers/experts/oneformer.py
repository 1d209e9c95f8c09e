"""Semantic segmentation into the 133 classes of COCO, by one network for three tasks."""

from typing import Any

from fourmill.labelers.base import LabelerSpec, Resources
from fourmill.labelers.transformers_network import TransformersNetwork
from fourmill.labelers.transformers_segmentation import SegmentationLabeler
from fourmill.manifests.hub import HubWeights

_TASK = "the task is semantic"  # how its authors asked for it in training


class OneFormer(SegmentationLabeler):
    """OneFormer with a Swin-L, told to segment semantically; classes as of `mask2former`."""

    spec = LabelerSpec(
        name="oneformer",
        version=1,
        reads=("rgb",),
        writes=("semseg_coco",),
        alternative=True,
        summary="one of COCO's 133 classes a pixel, by OneFormer Swin-L",
        licence="MIT",
        citation="Jain et al. 2023, OneFormer, arXiv:2211.06220",
        hub=HubWeights(
            "shi-labs/oneformer_coco_swin_large", "4e191050efb7b92cf62fbd053c88c7e2b071728b"
        ),
        weights_mb=879,
        resources=Resources(gpus=0.5, memory_gib=8.0, batch_size=4),
    )

    def load(self, device: str) -> None:
        # else its processor fetches the names of the classes from another repository
        options = {"class_info_file": None}
        self._network = TransformersNetwork(
            self.spec, device, self.model, "OneFormerImageProcessor", processor_options=options
        )
        self._constants = {"task_inputs": self._task().to(device)}

    def _task(self) -> Any:
        """The words of the task as its own processor encodes them."""
        import torch
        from transformers import AutoTokenizer

        assert self.spec.hub is not None
        tokenizer = self.spec.hub.build(AutoTokenizer)
        length = self._network.model.config.task_seq_len
        words = tokenizer(_TASK, padding="max_length", max_length=length, truncation=True)
        # what only fills up counts as 0, whatever the tokenizer fills up with
        return torch.tensor(words["input_ids"]) * torch.tensor(words["attention_mask"])


LABELER = OneFormer
