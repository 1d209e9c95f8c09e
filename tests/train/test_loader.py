"""The loader: which samples come when, and that they are what the dataset holds."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.train.conftest import (
    CAPTION,
    PATCH,
    PHOTOS,
    SHARDS,
    SIZE,
    caption_tokens,
    colour_tokens,
    write_dataset,
)

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError, ShardError, UnknownNameError
from fourmill.manifests.labels import decode_image
from fourmill.manifests.snapshots import Producer
from fourmill.train import arrays, runs
from fourmill.train import pixels as pixels_module
from fourmill.train.arrays import Column, Files, Rows
from fourmill.train.config import MaskingConfig, Mixture, TrainConfig
from fourmill.train.data import domains_of
from fourmill.train.loader import TokenLoader
from fourmill.train.loop import train
from fourmill.train.masking import Masking

NUM_TRAIN = len(PHOTOS) * (SHARDS - 1) // SHARDS


def loader_of(dataset: Dataset, split: str = "train", **options: object) -> TokenLoader:
    domains = domains_of(dataset.head, None, None, PATCH)
    values = {"batch_size": 4, "seed": 5} | options
    return TokenLoader(dataset, dataset.head, domains, split, **values)  # type: ignore[arg-type]


def test_by_default_a_model_sees_all_tokens_and_pixels_of_their_size(dataset: Dataset) -> None:
    domains = domains_of(dataset.head, None, None, PATCH)
    assert domains.inputs == ("rgb@32", "tok_caption", "tok_colour@32", "tok_light@32")
    assert domains.targets == ("tok_caption", "tok_colour@32", "tok_light@32")
    assert domains.modality("rgb@32").grid == (SIZE // PATCH, SIZE // PATCH)


def test_every_sample_comes_once_an_epoch_in_an_order_of_its_own(dataset: Dataset) -> None:
    loader = loader_of(dataset)
    ids = torch.cat([loader.batch(number).sample for number in range(6)]).tolist()
    visits = torch.cat([loader.batch(number).visit for number in range(6)]).tolist()
    assert visits == [place // NUM_TRAIN for place in range(24)]
    epochs = [ids[start : start + NUM_TRAIN] for start in range(0, 24, NUM_TRAIN)]
    assert all(Counter(each) == Counter(range(NUM_TRAIN)) for each in epochs)
    assert len({tuple(each) for each in epochs}) > 1


def test_the_state_of_the_loader_is_one_number(dataset: Dataset) -> None:
    one, other = loader_of(dataset), loader_of(dataset)
    for number in range(7):
        one.batch(number)
    ahead, fresh = one.batch(7), other.batch(7)
    assert torch.equal(ahead.sample, fresh.sample)
    assert all(torch.equal(ahead.tokens[name], fresh.tokens[name]) for name in ahead.tokens)
    assert all(torch.equal(ahead.pixels[name], fresh.pixels[name]) for name in ahead.pixels)


def test_what_is_read_ahead_is_what_is_read_step_by_step(dataset: Dataset) -> None:
    loader = loader_of(dataset)
    steps = [4 * number + np.arange(4) for number in range(5)]
    shares = [step[rank::3] for step in steps for rank in range(3)]
    ahead = loader.read_ahead(shares, depth=3)
    parts = [next(ahead) for _ in shares]
    with pytest.raises(StopIteration):
        next(ahead)
    for number in range(5):
        whole = loader.batch(number)
        for rank, part in enumerate(parts[3 * number : 3 * number + 3]):
            assert torch.equal(part.sample, whole.sample[rank::3])
            assert torch.equal(part.visit, whole.visit[rank::3])
            for name, pixels in part.pixels.items():
                assert torch.equal(pixels, whole.pixels[name][rank::3])
            for name, tokens in part.tokens.items():
                assert torch.equal(tokens, whole.tokens[name][rank::3])


def test_pixels_and_tokens_show_the_same_crop(dataset: Dataset) -> None:
    loader = loader_of(dataset)
    seen = set()
    for number in range(6):
        batch = loader.batch(number)
        found = colour_tokens(batch.pixels["rgb@32"].numpy())
        np.testing.assert_array_equal(batch.tokens["tok_colour@32"].numpy(), found)
        seen |= {row.tobytes() for row in found}
    assert len(seen) > NUM_TRAIN  # several crops of a sample are used


def test_text_belongs_to_its_sample(dataset: Dataset) -> None:
    for batch in loader_of(dataset, "val").all():
        for row, tokens in zip(batch.sample.tolist(), batch.tokens["tok_caption"], strict=True):
            np.testing.assert_array_equal(tokens.numpy(), caption_tokens(row))


def test_a_validation_split_is_read_in_order_without_flips_or_chance(dataset: Dataset) -> None:
    loader = loader_of(dataset, "val", batch_size=1)
    assert [batch.sample.tolist() for batch in loader.all()] == [[6], [7]]
    assert loader.keys == list(PHOTOS[6:])


def test_pixels_are_the_same_without_a_cache(dataset: Dataset) -> None:
    cached, bare = loader_of(dataset), loader_of(dataset, cache_bytes=0)
    for number in (0, 1, 0):
        pixels = cached.batch(number).pixels["rgb@32"]
        assert torch.equal(pixels, bare.batch(number).pixels["rgb@32"])


def test_however_few_files_can_be_mapped_batches_are_the_same(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = loader_of(dataset).at(np.arange(3 * NUM_TRAIN))
    monkeypatch.setattr(arrays, "_MOST_MAPS", 1)
    loader = loader_of(dataset, cache_bytes=0)
    parts = [loader.at(np.arange(first, first + 2)) for first in range(0, 3 * NUM_TRAIN, 2)]
    for name, tokens in usual.tokens.items():
        assert torch.equal(torch.cat([part.tokens[name] for part in parts]), tokens)
    found = torch.cat([part.pixels["rgb@32"] for part in parts])
    assert torch.equal(found, usual.pixels["rgb@32"])


def test_rows_and_crops_that_are_not_there_are_never_read(dataset: Dataset) -> None:
    loader = loader_of(dataset)
    for row in (-1, NUM_TRAIN):
        with pytest.raises(IndexError, match=rf"rows {row} to {row}: there are {NUM_TRAIN}"):
            loader.rows(np.array([row]))
    files = arrays.Files(arrays.Rows(dataset, dataset.head, [0]), "tok_light@32", None)
    column = arrays.Column(files)
    with pytest.raises(IndexError, match="crops 3 to 3: there are 3"):
        column.read(files.rows.locate(np.array([0])), np.array([3]))


@pytest.mark.parametrize(
    ("field", "value"), [("data_offset", -512), ("data_offset", 10**7), ("record_bytes", 8)]
)
def test_a_table_that_leads_out_of_its_files_is_refused(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, field: str, value: int
) -> None:
    column = Rows.column

    def broken(rows: Rows, modality: str, name: str) -> list[Any]:
        found = column(rows, modality, name)
        return [value] * len(found) if name == field else found

    rows = Rows(dataset, dataset.head, [0, 1])
    Column(Files(rows, "tok_light@32", None))
    monkeypatch.setattr(Rows, "column", broken)
    with pytest.raises(ShardError, match=r"shard-000000.tar.*would lie outside of it"):
        Column(Files(rows, "tok_light@32", None))


def test_samples_without_a_label_are_marked(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path)
    writer = dataset.writer(CAPTION, Producer(name="other", version="2"), {}, SHARDS)
    for shard in range(SHARDS):
        rows = range(2 * shard, 2 * shard + 2)
        tokens = np.stack([caption_tokens(row) for row in rows])
        keys = dataset.shard("rgb", shard).keys
        writer.commit(shard, keys, array=tokens, valid=[row != 3 for row in rows])
    dataset.publish([writer.finish()], "one caption fewer")
    loader = loader_of(dataset, batch_size=NUM_TRAIN)
    batch = loader.batch(0)
    assert torch.equal(batch.valid["tok_caption"], batch.sample != 3)


def test_tokens_outside_of_the_vocabulary_are_found_before_they_are_used(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path)
    writer = dataset.writer(CAPTION, Producer(name="broken", version="2"), {}, SHARDS)
    for shard in range(SHARDS):
        tokens = np.full((2, CAPTION.max_tokens), CAPTION.vocab_size, np.int16)
        writer.commit(shard, dataset.shard("rgb", shard).keys, array=tokens)
    dataset.publish([writer.finish()], "ids too high")
    with pytest.raises(ConfigError, match=r"tokens from 4400 to 4400.*vocabulary.*has 4400"):
        loader_of(dataset).batch(0)


@pytest.mark.parametrize("shard", range(SHARDS - 1))
def test_a_token_outside_of_the_vocabulary_anywhere_stops_a_training_before_its_first_step(
    make_config: Callable[..., TrainConfig], tmp_path: Path, shard: int
) -> None:
    dataset = write_dataset(tmp_path / "data")
    writer = dataset.writer(CAPTION, Producer(name="broken", version="2"), {}, SHARDS)
    for each in range(SHARDS):
        tokens = np.zeros((2, CAPTION.max_tokens), np.int16)
        tokens[1, 3] = -5 if each == shard else 7
        writer.commit(each, dataset.shard("rgb", each).keys, array=tokens)
    dataset.publish([writer.finish()], "one token below 0")
    config = make_config(root=dataset.url)
    with pytest.raises(ConfigError, match=rf"{shard:06d}.tar: sample 1 has tokens from -5 to 0"):
        train(config)
    assert runs.finished_steps(config.out) == 0


@pytest.mark.parametrize("name", ["tok_light@32", "rgb", "crop_settings"])
def test_a_shard_with_a_changed_byte_stops_a_training_before_its_first_step(
    make_config: Callable[..., TrainConfig], tmp_path: Path, name: str
) -> None:
    dataset = write_dataset(tmp_path / "data")
    file = tmp_path / "data" / name / "shard-000002.tar"
    data = bytearray(file.read_bytes())
    data[1000] ^= 1
    file.write_bytes(data)
    with pytest.raises(ShardError, match=rf"{name}/shard-000002.tar: .*SHA-256.*verify --deep"):
        train(make_config(root=dataset.url))
    file.write_bytes(data[:-512])
    with pytest.raises(ShardError, match=r"its record says"):
        loader_of(dataset).at(np.arange(NUM_TRAIN))
    file.unlink()
    with pytest.raises(ShardError, match=r"the file is missing"):
        loader_of(dataset).at(np.arange(NUM_TRAIN))


def test_only_pixels_that_a_sample_wants_are_decoded(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []

    def decode(data: bytes) -> np.ndarray:
        decoded.append(data)
        return decode_image(data)

    monkeypatch.setattr(pixels_module, "decode_image", decode)

    def odd(sample: torch.Tensor, visit: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"rgb@32": sample % 2 == 1}

    positions = np.arange(NUM_TRAIN)
    whole = loader_of(dataset).at(positions)
    decoded.clear()
    for cache_bytes in (0, 2**20):
        part = loader_of(dataset, cache_bytes=cache_bytes).at(positions, odd)
        is_odd = part.sample % 2 == 1
        found = part.pixels["rgb@32"]
        assert torch.equal(found[is_odd], whole.pixels["rgb@32"][is_odd])
        assert not found[~is_odd].any()
        assert part.valid["rgb@32"].all()
    assert len(decoded) == 2 * (NUM_TRAIN // 2)


def test_what_masking_does_not_want_changes_no_selection(dataset: Dataset) -> None:
    domains = domains_of(dataset.head, None, None, PATCH)
    mixture = (Mixture(inputs={"rgb@32": 1.0}), Mixture(inputs={"rgb@32": 0, "*": 1}))
    config = MaskingConfig(input_tokens=8, target_tokens=8, mixture=mixture)
    masking = Masking(domains, config, seed=1)
    loader, positions = loader_of(dataset), np.arange(40)
    all_pixels = loader.at(positions)
    wanted = loader.at(positions, masking.wants_pixels)
    assert not torch.equal(all_pixels.pixels["rgb@32"], wanted.pixels["rgb@32"])
    whole, part = masking(all_pixels), masking(wanted)
    shown = whole.input_modality == domains.index("rgb@32")
    assert shown.any()
    assert not shown.any(1).all()
    assert torch.equal(whole.input_modality, part.input_modality)
    assert torch.equal(whole.target_token, part.target_token)
    has_pixels = shown.any(1)
    for name, values in whole.continuous.items():
        assert torch.equal(values[has_pixels], part.continuous[name][has_pixels])


def test_names_that_the_dataset_lacks_are_refused(dataset: Dataset) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'tok_colour@32'"):
        domains_of(dataset.head, None, ["tok_color@32"], PATCH)
    with pytest.raises(ConfigError, match="not a multiple of pixel_patch 5"):
        domains_of(dataset.head, None, None, 5)
    with pytest.raises(ConfigError, match="rgb@32 can only be an input"):
        domains_of(dataset.head, ["rgb@32"], ["rgb@32"], PATCH)
    with pytest.raises(ConfigError, match="no split 'test'"):
        loader_of(dataset, "test")
