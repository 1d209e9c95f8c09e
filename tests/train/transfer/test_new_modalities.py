"""Modalities that are added to a trained model: what it knew before stays, to the bit."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.train.conftest import CAPTION, COLOUR, LIGHT
from tests.train.transfer.conftest import PIXELS

from fourmill.manifests.modalities import Masking, Modality
from fourmill.train.conditions import Conditions, select_inputs
from fourmill.train.config import TrainConfig
from fourmill.train.convert import write_model
from fourmill.train.domains import Domains
from fourmill.train.exchange import reference_state
from fourmill.train.loop import train
from fourmill.train.model import FourM, ModelShape
from fourmill.train.published import load_published
from fourmill.train.selection import Selection
from fourmill.train.warm import start_from

SHAPE = ModelShape(32, 2, encoder_depth=2, decoder_depth=2, registers=1)
VECTORS = Modality(
    "a_vectors", CAPTION.kind, "a_vectors", "npz", Masking.EMBEDDING, 0, 7, channels=5
)  # fmt: skip
WORDS = replace(CAPTION, name="tok_words", folder="tok_words", vocab_size=5000)


def asked(model: FourM, target: Modality) -> Selection:
    """All pixels and some words as inputs, and all of a modality as target."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (2, 32, 32, 3), generator=generator).byte()
    words = torch.tensor([[4301, 4322, 3, 0], [4307, 3, 0, 0]])
    selection = select_inputs(
        model.domains, Conditions(torch.arange(2), {CAPTION.name: words}, {PIXELS.name: pixels})
    )
    place = torch.arange(12).expand(2, -1)
    number = torch.full_like(place, model.domains.index(target.name))
    return replace(
        selection, target_modality=number, target_position=place, target_token=place + 5,
        target_label=place,
    )  # fmt: skip


@pytest.mark.parametrize("shared", [True, False], ids=["one table for text", "a table each"])
def test_what_a_model_said_before_it_says_after_modalities_are_added(
    tmp_path: Path, shared: bool
) -> None:
    shape = replace(SHAPE, share_text_embeddings=shared)
    old = FourM(Domains.of([PIXELS, LIGHT, CAPTION]), shape, seed=1)
    write_model(old, tmp_path / "old.safetensors", "fourmill")
    # new ones before, between and after the old ones by name, as input, as target and as both
    domains = Domains.of([PIXELS, LIGHT, CAPTION, COLOUR, VECTORS, WORDS])
    new = FourM(domains, shape, seed=2)
    fresh = reference_state(new)
    begun = start_from(tmp_path / "old.safetensors", new)
    for target in (LIGHT, CAPTION):
        expected, found = (
            model.logits(target.name, model(asked(model, target))) for model in (old, new)
        )
        assert torch.equal(found, expected)
    state, before = reference_state(new), reference_state(old)
    for name, value in before.items():
        assert torch.equal(state[name], value), name
    added = {name for name in state if name not in before}
    assert {name.split(".")[1] for name in added} == {COLOUR.name, VECTORS.name, WORDS.name}
    tables = {name for name in added if "token_emb" in name or "emb_proj" in name}
    for name in tables - {each for each in tables if shared and WORDS.name in each}:
        assert torch.equal(state[name], fresh[name]), name
    assert {each.partition(" as ")[0] for each in begun.fresh} == {
        COLOUR.name, VECTORS.name, WORDS.name,
    }  # fmt: skip


def test_a_training_adds_modalities_to_the_run_that_it_starts_from(
    make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    first = make_config(
        out=tmp_path / "first", steps=3, inputs=("rgb@32",), targets=("tok_light@32",)
    )
    train(first)
    second = make_config(
        out=tmp_path / "second", init_from=str(first.out), steps=1, lr=1e-30, weight_decay=0.0,
        warmup=0,
    )  # fmt: skip
    train(second)
    old, new = (load_published(each.out) for each in (first, second))
    state, before = reference_state(new), reference_state(old)
    for name, value in before.items():
        assert torch.equal(state[name], value), name
    assert set(new.domains.targets) == {"tok_light@32", "tok_colour@32", "tok_caption"}
    assert set(new.domains.inputs) > {"tok_caption", "rgb@32"}
