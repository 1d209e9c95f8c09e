"""What a tokenizer's training makes small."""

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError
from fourmill.manifests.modalities import modality
from fourmill.tokenize.losses import reconstruction_loss
from fourmill.train.processes import Process
from fourmill.train.tokenizers.codes import CodeUse
from fourmill.train.tokenizers.config import PerceptualConfig, TokenizerTrainConfig
from fourmill.train.tokenizers.data import LabelLoader
from fourmill.train.tokenizers.perceptual import Perceptual

ALONE = Process(0, 1, torch.device("cpu"))


def make_loader(dataset: Dataset, **options: object) -> LabelLoader:
    values = {
        "definition": modality("depth"), "split": "train", "side": 32, "batch_size": 4, "seed": 3,
        "min_scale": 0.4,
    }  # fmt: skip
    return LabelLoader(dataset, dataset.head, **(values | options))  # type: ignore[arg-type]


def test_batches_are_the_same_from_any_step_with_any_readers_and_processes(
    labelled: Dataset,
) -> None:
    whole = list(make_loader(labelled).batches(0, 5))
    later = list(make_loader(labelled, readers=3).batches(2, 5))
    for one, other in zip(whole[2:], later, strict=True):
        assert torch.equal(one.inputs, other.inputs)
    parts = [list(make_loader(labelled, share=(rank, 2)).batches(0, 5)) for rank in range(2)]
    for one, first, second in zip(whole, *parts, strict=True):
        assert torch.equal(one.inputs, torch.cat([first.inputs, second.inputs]))


def test_an_epoch_has_every_label_once(labelled: Dataset) -> None:
    loader = make_loader(labelled, split=None, batch_size=1, definition=modality("grid_means"))
    epochs = [
        torch.cat([each.inputs for each in loader.batches(start, start + 8)]) for start in (0, 8)
    ]
    assert not torch.equal(*epochs)
    one, other = (epoch[epoch[:, 0].argsort()] for epoch in epochs)
    assert torch.equal(one, other)
    assert len(one.unique(dim=0)) == 8


def test_pixels_outside_of_the_mask_have_no_say(labelled: Dataset) -> None:
    loader = make_loader(labelled, mask="canny_edge")
    batch = loader.first(4)
    assert batch.valid is not None
    assert 0 < batch.valid.float().mean() < 1
    decoded = torch.zeros_like(batch.inputs)
    spoilt = torch.where(batch.valid[:, None], batch.inputs, 4.0)
    definition = modality("depth")
    expected = reconstruction_loss(definition, decoded, batch.inputs, None, batch.valid)
    assert torch.equal(
        reconstruction_loss(definition, decoded, spoilt, None, batch.valid), expected
    )
    assert reconstruction_loss(definition, decoded, spoilt) > expected


@pytest.mark.parametrize("network", ["resnet18", "vit_tiny_patch16_224"])
def test_a_perceptual_loss_sees_what_a_network_of_timm_sees(tmp_path: Path, network: str) -> None:
    torch.manual_seed(0)
    path = tmp_path / "weights.safetensors"
    save_file(timm.create_model(network, pretrained=False).state_dict(), path)
    loss = Perceptual(PerceptualConfig(network=network, weights=path))
    pictures = torch.rand(2, 3, 32, 32) * 2 - 1
    noisy = (pictures + 0.1 * torch.randn_like(pictures)).requires_grad_()
    assert loss(pictures, pictures) == pytest.approx(0, abs=1e-5)
    distance = loss(noisy, pictures)
    torch.autograd.backward(distance)
    assert distance > 1e-4
    assert noisy.grad is not None
    assert noisy.grad.abs().sum() > 0
    assert not list(loss.parameters()), "the network is not trained, averaged or saved"
    again = Perceptual(PerceptualConfig(network=network, weights=path))
    assert again(noisy, pictures) == distance


def test_weights_that_are_not_those_of_the_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"other": torch.zeros(2)}, path)
    with pytest.raises(ConfigError, match="not the weights of resnet18"):
        Perceptual(PerceptualConfig(network="resnet18", weights=path))


def test_a_code_book_that_collapses_is_noticed_and_one_that_does_not_is_not() -> None:
    use = CodeUse(100, torch.device("cpu"))
    use.add(torch.arange(100).repeat(4).view(4, 10, 10))
    found, warning = use.take(ALONE)
    assert found == {"codes_used": 1.0, "perplexity": 100.0}
    assert warning is None
    use.add(torch.arange(30).repeat(20))
    found, warning = use.take(ALONE)
    assert found == {"codes_used": 0.3, "perplexity": 30.0}
    assert warning is not None
    assert "fell from 100.0 to 30.0" in warning
    never_used = CodeUse(100, torch.device("cpu"))
    never_used.add(torch.zeros(400, dtype=torch.int64))
    assert "hardly used" in (never_used.take(ALONE)[1] or "")


def test_a_batch_that_processes_cannot_share_is_refused(
    make_config: Callable[..., TokenizerTrainConfig], labelled: Dataset
) -> None:
    with pytest.raises(ConfigError, match="not a multiple of the 3 processes"):
        make_loader(labelled, share=(0, 3))
