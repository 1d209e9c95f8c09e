"""Masks of a dataset become tokens in words, which the loader reads and published models know."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from tests.train.test_convert import assert_same, random_model, written

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.labels import encode_label
from fourmill.manifests.modalities import TEXT_VOCAB, Kind, modality
from fourmill.manifests.run_lengths import masks_label, read_masks
from fourmill.manifests.snapshots import Producer
from fourmill.tokenize import registry
from fourmill.tokenize.autoencoder import AutoencoderConfig, VQAutoencoder
from fourmill.tokenize.base import Tokenizer
from fourmill.tokenize.crops import crop_dense, crop_settings
from fourmill.tokenize.masks import MaskTokenizer, box_of
from fourmill.tokenize.vocabulary import train_vocabulary
from fourmill.train.data import domains_of
from fourmill.train.domains import Domains
from fourmill.train.exchange import reference_state, rename_modalities
from fourmill.train.loader import TokenLoader
from fourmill.train.model import FourM
from fourmill.train.warm import start_from

PHOTOS, CROPS = ("astronaut", "chelsea", "coffee", "rocket"), 3


def masks_of(name: str) -> list[np.ndarray]:
    """A whole and a part of it, which lies inside."""
    grey = getattr(skimage.data, name)()[:160, :200].mean(axis=2)
    part = np.zeros(grey.shape, bool)
    part[40:120, 60:140] = grey[40:120, 60:140] > np.median(grey[40:120, 60:140])
    whole = part.copy()
    whole[20:140, 30:180] = True
    return [whole, part]


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    torch.manual_seed(0)
    shape = AutoencoderConfig(
        channels=1, size=64, patch=16, dim=16, heads=1, encoder_depth=1, decoder_depth=1,
        latent=16, codes=1024, out_conv=True,
    )  # fmt: skip
    codec = MaskTokenizer(modality("sam_mask"), VQAutoencoder(shape))
    folders = registry.save_text_tokenizers(
        tmp_path_factory.mktemp("tokenizers"),
        train_vocabulary(["a coin on a page"] * 9, 5_000),
        ["sam_instance", "human_poses"],
        codecs={"sam_instance": codec},
    )
    return {name: registry.load(folder) for name, folder in folders.items()}


@pytest.fixture(scope="module")
def dataset(tokenizers: dict[str, Tokenizer], tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Photographs with masks, and their tokens, as a run stores them."""
    tokenizer = tokenizers["sam_instance"]
    made = Dataset.open(str(tmp_path_factory.mktemp("masks")), create=True)
    names = ("rgb", "crop_settings", "sam_instance")
    definitions = [*(modality(each) for each in names), tokenizer.token_modality]
    producer = Producer(name="test", version="1")
    rgb, settings, masks, tokens = [made.writer(each, producer, {}, 1) for each in definitions]
    images = [np.ascontiguousarray(getattr(skimage.data, each)()[:160, :200]) for each in PHOTOS]
    labels = [masks_label(masks_of(each)) for each in PHOTOS]
    crops = [crop_settings(each, 160, 200, CROPS) for each in PHOTOS]
    rgb.commit(0, PHOTOS, payloads=[encode_label(modality("rgb"), each) for each in images])
    settings.commit(0, PHOTOS, array=np.stack(crops))
    stored = [encode_label(modality("sam_instance"), each) for each in labels]
    masks.commit(0, PHOTOS, payloads=stored)
    tokens.commit(
        0, PHOTOS, array=tokenizer.tokenize(labels, crops, [(160, 200)] * len(PHOTOS), PHOTOS)
    )
    made.publish(
        [each.finish() for each in (rgb, settings, masks, tokens)], "masks", {"train": [(0, 1)]}
    )
    return made


def test_the_loader_reads_tokens_that_say_the_masks_of_their_crop(
    dataset: Dataset, tokenizers: dict[str, Tokenizer]
) -> None:
    assert dataset.verify(deep=True) == []
    domains = domains_of(dataset.head, ["tok_sam_instance"], None, 16)
    loader = TokenLoader(dataset, dataset.head, domains, "train", batch_size=4, seed=3)
    names = ["tok_sam_instance", "crop_settings"]
    stored = [tuple(np.asarray(each[name]) for name in names) for each in dataset.samples(names)]
    seen = set()
    for number in range(4):
        batch = loader.batch(number)
        rows = batch.tokens["tok_sam_instance"].numpy()
        for sample, row in zip(batch.sample.tolist(), rows, strict=True):
            tokens, settings = stored[sample]
            (number_of_crop,) = np.flatnonzero((tokens == row).all(axis=1))
            seen.add((sample, int(number_of_crop)))
            crop = settings[number_of_crop : number_of_crop + 1]
            shown = [
                crop_dense(mask.astype(np.uint16), Kind.INSTANCES, crop, (160, 200), 224)[0] > 0
                for mask in masks_of(PHOTOS[sample])
            ]
            (label,) = tokenizers["sam_instance"].detokenize(row[None])
            found = [each.mask() for each in read_masks(label)]
            assert found
            # the codec has learned nothing, but where a mask is and how large is said in words
            boxes = [box_of(each) for each in shown if each.any()]
            for mask in found:
                left, top, right, bottom = box_of(mask)
                assert any(
                    left >= box[0] and top >= box[1] and right <= box[2] and bottom <= box[3]
                    for box in boxes
                )
    assert len(seen) > len(PHOTOS)


def test_published_models_know_the_tokens_by_the_names_of_the_reference(
    tokenizers: dict[str, Tokenizer], tmp_path: Path
) -> None:
    texts = {"tok_human_poses": "human_poses", "tok_sam_instance": "sam_instance"}
    published = random_model((*texts.values(), "tok_rgb@224"))
    file = written(published, tmp_path / "published.safetensors")
    tokens = [tokenizers[each].token_modality for each in texts.values()]
    assert [each.name for each in tokens] == list(texts)
    words = [replace(each, vocab_size=TEXT_VOCAB) for each in tokens]  # as with its vocabulary
    ours = FourM(Domains.of([*words, modality("tok_rgb@224")]), published.shape)
    start = start_from(file, ours)
    assert not start.fresh
    assert not start.unused
    renamed = rename_modalities(reference_state(ours), texts)
    assert_same(renamed, reference_state(published))
    # of poses it embeds fewer positions than there are tokens
    position = torch.arange(275)[None]
    one, other = (
        model.target_positions(torch.full((1, 275), model.domains.index(name)), position)[0]
        for model, name in ((ours, "tok_human_poses"), (published, "human_poses"))
    )
    assert torch.equal(one, other)
    assert torch.equal(one[263], one[0])
    assert not torch.equal(one[262], one[0])
