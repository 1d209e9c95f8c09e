"""What a step costs: as counted by torch, and as known of the published sizes."""

import pytest
import torch
from tests.train.reference import DOMAINS, masked_batch, micro_model
from torch.utils.flop_counter import FlopCounterMode

from fourmill.train.config import PRESETS
from fourmill.train.flops import peak_flops, projected_width, sample_flops
from fourmill.train.loss import compute_loss, count_targets
from fourmill.train.model import ModelShape


@pytest.mark.parametrize("variant", ["swiglu", "reg"])
def test_counts_are_those_of_torch(variant: str) -> None:
    model, batch = micro_model(variant), masked_batch()
    with FlopCounterMode(display=False) as counter:
        compute_loss(model, batch).total.backward()
    samples, inputs = batch.input_modality.shape
    slots = batch.target_modality.shape[1]
    counts = count_targets(DOMAINS, batch)
    sizes = torch.tensor([DOMAINS.modality(name).vocab_size for name in DOMAINS.targets])
    width = float((counts * sizes).sum()) / (samples * slots)  # padding meets no head
    ours = sample_flops(model.shape, inputs, slots, width, projected_width(DOMAINS))
    # torch counts the padding of hidden widths, and no gradient with respect to pixels
    assert samples * ours.training == pytest.approx(counter.get_total_flops(), rel=0.07)


@pytest.mark.parametrize(
    ("preset", "forward", "shares"),
    [("base", 55.1e9, (41, 55, 4.4)), ("large", 188.7e9, (42, 56, 1.7)),
     ("xlarge", 738.8e9, (42, 57, 0.9))],
)  # fmt: skip
def test_published_sizes_cost_what_is_known(
    preset: str, forward: float, shares: tuple[float, ...]
) -> None:
    found = sample_flops(ModelShape(**PRESETS[preset]), 128, 128, 12_470.0)
    assert found.forward == pytest.approx(forward, rel=0.01)
    assert found.training == 3 * found.forward
    parts = (found.encoder, found.decoder, found.heads)
    assert [100 * each / found.forward for each in parts] == pytest.approx(shares, abs=0.6)


def test_of_a_cpu_no_peak_is_claimed() -> None:
    assert peak_flops(torch.device("cpu")) is None
