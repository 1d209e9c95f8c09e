"""A ControlNet learns to lead a diffusion model by codes, and becomes a tokenizer's decoder."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.tokenize.picture_model import DRAWING, save_picture_model
from tests.train.stopping import Stop, stop_after
from tests.train.tokenizers.conftest import NETWORKS

from fourmill.manifests.errors import ConfigError
from fourmill.tokenize import registry
from fourmill.tokenize.controlled import ControlledTokenizer
from fourmill.tokenize.crops import crop_settings
from fourmill.train.tokenizers.config import TokenizerTrainConfig
from fourmill.train.tokenizers.loop import train
from fourmill.train.tokenizers.objectives import make_objective
from fourmill.train.tokenizers.plan import plan_run

pytest.importorskip("diffusers")

MakeConfig = Callable[..., TokenizerTrainConfig]
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def network(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, object]:
    """Of a ControlNet for a tokenizer of two steps, and a small model that is here."""
    monkeypatch.setenv("FOURMILL_WEIGHTS", str(tmp_path / "weights"))
    save_picture_model(tmp_path / "weights" / DRAWING.model)
    coder = make_config(out=tmp_path / "coder", steps=2, network=NETWORKS["vq"])
    train(plan_run(coder))
    return {
        "kind": "controlled", "tokenizer": str(plan_run(coder).tokenizer),
        "drawing": DRAWING.model_dump(mode="json"),
    }  # fmt: skip


def test_a_training_that_was_interrupted_ends_the_same_and_becomes_the_decoder(
    make_config: MakeConfig, network: dict[str, object], tmp_path: Path
) -> None:
    options = {"network": network, "steps": 4, "eval_every": 4, "eval_samples": 1}
    whole = make_config(out=tmp_path / "whole", **options)
    train(plan_run(whole))
    broken = make_config(out=tmp_path / "broken", **options)
    with pytest.raises(Stop):
        train(plan_run(broken), stop_after(3))
    train(plan_run(broken))
    first, second = (plan_run(each).tokenizer / "controlnet" for each in (whole, broken))
    assert (first / WEIGHTS).read_bytes() == (second / WEIGHTS).read_bytes()
    record = json.loads((plan_run(whole).tokenizer / "training.json").read_text())
    assert record["metrics"]["psnr"] > 0
    tokenizer = registry.load(plan_run(whole).tokenizer)
    assert isinstance(tokenizer, ControlledTokenizer)
    coder = registry.load(Path(str(network["tokenizer"])))
    rgb = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    inputs = [rgb], [crop_settings("a", 40, 60, 2)], [(40, 60)], ["a"]
    tokens = tokenizer.tokenize(*inputs)
    np.testing.assert_array_equal(tokens, coder.tokenize(*inputs))
    (picture,) = tokenizer.detokenize(tokens[0, :1])
    assert np.asarray(picture).shape == (32, 32, 3)
    # what was trained can be gone on from
    again = make_config(out=tmp_path / "again", steps=1, **{
        "network": network | {"controlnet": str(first)}
    })  # fmt: skip
    learned = load_file(first / WEIGHTS)
    for name, value in (
        make_objective(plan_run(again).definition, again).network.state_dict().items()
    ):
        assert torch.equal(value, learned[name]), name


def test_it_learns_and_leaves_the_model_and_the_codes_as_they_are(
    make_config: MakeConfig, network: dict[str, object]
) -> None:
    config = make_config(network=network)
    objective = make_objective(plan_run(config).definition, config)
    frozen = {
        name: value.clone()
        for name, value in objective.state_dict().items()
        if not name.startswith("network.")
    }
    pictures = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    optimizer = torch.optim.AdamW(objective.network.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        outcome = objective(pictures, None, 7, 0.0)  # the same noise each time
        optimizer.zero_grad()
        torch.autograd.backward(outcome.loss)
        optimizer.step()
        losses.append(float(outcome.loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
    now = objective.state_dict()
    assert all(torch.equal(value, now[name]) for name, value in frozen.items())


def test_what_does_not_fit_is_said_before_a_step(
    make_config: MakeConfig, network: dict[str, object], tmp_path: Path
) -> None:
    def refuse(message: str, **options: object) -> None:
        config = make_config(**{"network": network, "out": tmp_path / message} | options)
        with pytest.raises(ConfigError, match=message):
            train(plan_run(config))

    refuse("draws no depth", modality="depth")
    refuse("expected one of rgb for tok_rgb@48", size=48)
    refuse("expected one of rgb for tok_photo@32", name="photo")
    refuse("no tokenizer here", network=network | {"tokenizer": str(tmp_path)})
    wrong = {"modle": "acme/pictures"}
    refuse(
        "unknown key 'drawing.modle'; did you mean 'model'", network=network | {"drawing": wrong}
    )
    with pytest.raises(ValueError, match="compile is for networks of other kinds"):
        make_config(network=network, compile=True)
