"""The model computes what the reference computes, and its weights go both ways."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.train.reference import (
    DATA,
    DOMAINS,
    NOSEP_ORDER,
    VARIANTS,
    golden,
    masked_batch,
    micro_model,
)

from fourmill.manifests.errors import ConfigError
from fourmill.manifests.modalities import FOURM_7, FOURM_21, modality
from fourmill.train.blocks import BlockConfig, GatedMLP
from fourmill.train.domains import Domains
from fourmill.train.exchange import load_reference, reference_state, to_reference
from fourmill.train.loss import compute_loss
from fourmill.train.model import FourM, ModelShape
from fourmill.train.selection import PADDING


def batch_of(variant: str):
    if variant != "nosep":
        return masked_batch()
    return masked_batch([*NOSEP_ORDER, "rgb@224"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_losses_are_those_of_the_reference(variant: str) -> None:
    file = golden("model.npz")
    model, selection = micro_model(variant), batch_of(variant)
    for ours, theirs in (("mod_global", "mod"), ("token_vocab", "token")):
        loss = compute_loss(model, selection, ours)
        assert loss.total.item() == pytest.approx(float(file[f"fm/{variant}/{theirs}/loss"]), 1e-6)
    by_modality = (loss.sums / loss.counts).tolist()
    for name, value in zip(DOMAINS.targets, by_modality, strict=True):
        assert value == pytest.approx(float(file[f"fm/{variant}/mod/{name}"]), 1e-6), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_are_those_of_the_reference(variant: str) -> None:
    file = golden("model.npz")
    model = micro_model(variant)
    compute_loss(model, batch_of(variant)).total.backward()
    gradients = {name: each.grad for name, each in model.named_parameters()}
    assert all(each is not None for each in gradients.values())
    found = to_reference(model, gradients)
    names, norms = file[f"fm/{variant}/grad_names"], file[f"fm/{variant}/grad_norms"]
    assert len(names) > 60
    for name, expected in zip(names.tolist(), norms.tolist(), strict=True):
        assert found[name].norm().item() == pytest.approx(expected, 1e-4), name


@pytest.mark.parametrize(
    ("listing", "names", "shape"),
    [
        ("keys_fm_micro_mod7.txt", FOURM_7, ModelShape(64, 4, encoder_depth=2, decoder_depth=2)),
        ("keys_fm_tiny_mod21.txt", FOURM_21, ModelShape(384, 6, encoder_depth=6, decoder_depth=6)),
    ],
)  # fmt: skip
def test_checkpoints_have_the_names_and_shapes_of_the_reference(listing, names, shape) -> None:
    model = FourM(Domains.of([modality(name) for name in names]), shape)
    found = {f"{name}\t{tuple(each.shape)}" for name, each in reference_state(model).items()}
    assert found == set((DATA / listing).read_text().splitlines())


def test_weights_go_out_and_come_back_to_the_bit() -> None:
    shape = ModelShape(32, 2, encoder_depth=1, decoder_depth=1, registers=2, qk_norm=True)
    one, other = FourM(DOMAINS, shape, seed=1), FourM(DOMAINS, shape, seed=2)
    load_reference(other, reference_state(one))
    for name, parameter in one.named_parameters():
        assert torch.equal(parameter, other.get_parameter(name)), name


def test_weights_of_another_model_are_refused_and_change_nothing() -> None:
    shape = ModelShape(32, 2, encoder_depth=1, decoder_depth=1)
    model = FourM(DOMAINS, shape)
    before = reference_state(model)
    state = dict(before)
    del state["encoder.0.mlp.fc3.weight"]
    with pytest.raises(ConfigError, match=r"1 tensors are missing \(encoder.0.mlp.fc3.weight\)"):
        load_reference(model, state)
    state = {**before, "decoder_norm.weight": torch.zeros(7)}
    with pytest.raises(ConfigError, match=r"decoder_norm.weight has shape \(7,\)"):
        load_reference(model, state)
    untied = {**before, "decoder_embeddings.det.to_logits.weight": torch.zeros(30_000, 32)}
    with pytest.raises(ConfigError, match="this model ties them"):
        load_reference(model, untied)
    after = reference_state(model)
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_padding_of_hidden_widths_stays_zero_in_training() -> None:
    torch.manual_seed(0)
    mlp = GatedMLP(BlockConfig(dim=64, heads=4))
    assert mlp.hidden == 170
    assert mlp.fc2.in_features == 192
    model = FourM(DOMAINS, ModelShape(64, 4, encoder_depth=1, decoder_depth=1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(2):
        compute_loss(model, masked_batch()).total.backward()
        optimizer.step()
    trained = model.encoder[0].mlp
    assert not trained.fc2.weight[:, 170:].any()
    assert not trained.gate_up.weight.view(2, 192, 64)[:, 170:].any()
    assert trained.fc2.weight[:, :170].any()


def test_what_is_empty_in_a_batch_does_not_touch_the_rest() -> None:
    model, selection = micro_model(), masked_batch()
    whole = model(selection)
    values = vars(selection).items()
    few = {name: value[:3] for name, value in values if isinstance(value, torch.Tensor)}
    continuous = {name: each[:3] for name, each in selection.continuous.items()}
    part = model(type(selection)(**few, continuous=continuous))
    valid = selection.target_modality[:3] >= 0
    np.testing.assert_allclose(part[valid].detach(), whole[:3][valid].detach(), atol=1e-5)


def test_a_width_that_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ConfigError, match="dim 30 is not a multiple of 4 heads"):
        FourM(DOMAINS, ModelShape(30, 4))


def test_activations_may_be_computed_again() -> None:
    gradients = []
    for again in (False, True):
        model = micro_model("reg")
        model.recompute = again
        compute_loss(model, masked_batch()).total.backward()
        gradients.append([each.grad for each in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("variant", VARIANTS)
def test_packed_samples_give_what_padded_ones_give(variant: str) -> None:
    batch = batch_of(variant)
    assert (batch.input_modality == PADDING).any()
    assert (batch.target_modality == PADDING).any()
    results = []
    for packed in (False, True):
        model = micro_model(variant)
        model.packed = packed
        loss = compute_loss(model, batch)
        loss.total.backward()
        results.append([loss.total.detach(), *(each.grad for each in model.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(other, one)


COMPILED = """
import torch
from dataclasses import replace
from tests.train.reference import masked_batch, micro_model
from fourmill.train.loss import compute_loss

plain, compiled = micro_model(), micro_model()
compiled.compile(backend="aot_eager", fullgraph=True, dynamic=False)
given = masked_batch()
tensors = {name: each for name, each in vars(given).items() if isinstance(each, torch.Tensor)}
batch, other = (
    replace(given, **{name: each.roll(by, 0) for name, each in tensors.items()}) for by in (0, 1)
)
with torch._dynamo.config.patch(error_on_recompile=True):
    for each in (batch, other):
        losses = [compute_loss(model, each).total for model in (plain, compiled)]
        torch.testing.assert_close(losses[1], losses[0])
        for loss in losses:
            loss.backward()
for one, two in zip(plain.parameters(), compiled.parameters(), strict=True):
    torch.testing.assert_close(one.grad, two.grad)
"""


def test_a_model_compiles_whole_once_for_all_batches_of_a_shape() -> None:
    # in a process of its own: here annotations are checked, which cannot be compiled
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", COMPILED], check=True, cwd=root)
