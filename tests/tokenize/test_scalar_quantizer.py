"""Finite scalar quantization: ids and codes are the same thing, and gradients go through."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fourmill.tokenize.quantize import ScalarQuantizer

LEVELS = st.lists(st.integers(2, 9), min_size=1, max_size=4)


@settings(deadline=None, max_examples=30)
@given(LEVELS)
def test_every_id_is_one_code_and_every_code_one_id(levels):
    quantizer = ScalarQuantizer(levels)
    total = math.prod(levels)
    assert quantizer.num_codes == total
    ids = torch.arange(total)[None, None]
    codes = quantizer.lookup(ids)
    assert codes.shape == (1, len(levels), 1, total)
    assert len(torch.unique(quantizer.codes, dim=0)) == total
    assert float(codes.abs().max()) == 1
    assert torch.equal(quantizer.ids_of(codes), ids)


@settings(deadline=None, max_examples=30)
@given(LEVELS, st.integers(0, 2**32 - 1))
def test_tokens_are_the_ids_of_the_codes_that_training_sees(levels, seed):
    quantizer = ScalarQuantizer(levels)
    generator = torch.Generator().manual_seed(seed)
    latents = 3 * torch.randn(2, len(levels), 3, 5, generator=generator)
    tokens = quantizer.tokenize(latents)
    assert int(tokens.min()) >= 0
    assert int(tokens.max()) < quantizer.num_codes
    torch.testing.assert_close(quantizer(latents), quantizer.lookup(tokens))
    assert torch.equal(quantizer.ids_of(quantizer(latents)), tokens)


@pytest.mark.parametrize("levels", [[2], [3], [2, 5], [8, 6, 5]])
def test_every_code_can_be_reached(levels):
    quantizer = ScalarQuantizer(levels)
    axes = torch.cartesian_prod(*[torch.linspace(-5, 5, 41)] * len(levels)).view(-1, len(levels))
    tokens = quantizer.tokenize(axes.T[None, :, :, None])
    assert len(torch.unique(tokens)) == quantizer.num_codes


def test_zero_is_in_the_middle_and_the_outer_levels_are_kept_far_out():
    quantizer = ScalarQuantizer([5, 4])
    latents = torch.tensor([[0.0, 0.0], [100.0, 100.0], [-100.0, -100.0]]).T[None, :, :, None]
    expected = torch.tensor([[0.0, 0.0], [1.0, 0.5], [-1.0, -1.0]]).T[None, :, :, None]
    torch.testing.assert_close(quantizer(latents), expected)


def test_gradients_are_those_of_what_is_not_rounded():
    quantizer = ScalarQuantizer([5, 3])
    latents = torch.tensor([0.3, -0.2], requires_grad=True)
    quantizer(latents[None, :, None, None]).sum().backward()
    reach = torch.tensor([2.0, 1.0]) * 0.999
    slope = (1 - latents.detach().tanh() ** 2) * reach / torch.tensor([2.0, 1.0])
    torch.testing.assert_close(latents.grad, slope)


def test_a_quantizer_has_nothing_to_save_and_needs_two_levels():
    assert not ScalarQuantizer([8, 6, 5]).state_dict()
    with pytest.raises(ValueError, match="at least 2 each"):
        ScalarQuantizer([8, 1])
