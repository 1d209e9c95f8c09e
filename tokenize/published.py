"""Tokenizers published for the reference implementation of 4M, as tokenizers of ours.

`EPFL-VILAB/4M_tokenizers_*` of a model hub, or a copy: a folder with `config.json` and
`model.safetensors`, one such file (settings in its metadata, or in `config.json` beside it), or a
`.pth` checkpoint of a training. No code of the checkpoints is run: pickles may hold tensors,
numbers and plain settings alone.
"""

import argparse
import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fourmill.manifests import modalities
from fourmill.manifests.errors import ConfigError
from fourmill.manifests.hub import HubWeights
from fourmill.manifests.modalities import Kind, Modality
from fourmill.tokenize.autoencoder import (
    AutoencoderConfig,
    EncoderConfig,
    TokenEncoder,
    VQAutoencoder,
)
from fourmill.tokenize.base import Tokenizer
from fourmill.tokenize.bottleneck import BottleneckAutoencoder, BottleneckConfig
from fourmill.tokenize.diffused import DiffusionTokenizer
from fourmill.tokenize.diffusion import PREDICTS, DiffusionConfig, Sampling
from fourmill.tokenize.divae import DiVAE, DiVAEConfig
from fourmill.tokenize.encoder_only import EncoderOnly
from fourmill.tokenize.masks import MaskTokenizer
from fourmill.tokenize.networks import WEIGHTS_FILE
from fourmill.tokenize.registry import PUBLISHER
from fourmill.tokenize.sizes import resized_state
from fourmill.tokenize.unet import UNetConfig
from fourmill.tokenize.vectors import VectorTokenizer
from fourmill.tokenize.vq import EncoderOnlyTokenizer, VQTokenizer

State = dict[str, Tensor]

SIZE = 224
"""Side of the crops that published tokenizers were trained for first, in pixels."""

_READS = {
    "rgb": ("rgb", "rgb"),
    "depth": ("depth", "depth"),
    "normal": ("normal", "normal"),
    "edge": ("canny_edge", "canny_edge"),
    "semseg": ("semseg_coco", "semseg"),
    "CLIP-B16": ("CLIP-B16", "clip"),
    "DINOv2-B14": ("DINOv2-B14", "dinov2"),
    "ImageBind-H14": ("ImageBind-H14", "imagebind"),
    "DINOv2-B14-global": ("DINOv2-B14-global", "dinov2_global"),
    "ImageBind-H14-global": ("ImageBind-H14-global", "imagebind_global"),
    "human-poses": ("body_pose", "body_pose"),
    "sam-instance": ("sam_mask", "sam_mask"),
}
"""What a repository is named after: the modality that it encodes, and the name of its tokens."""

_TRANSFORMERS = {"s": (512, 8, 8), "b": (768, 12, 12), "l": (1024, 24, 16)}
"""Width, blocks and heads of the reference's `vit_<letter>_enc` and `vit_<letter>_dec`."""

_UNETS = {"unet_patched": UNetConfig()}
"""Decoders by diffusion that are supported, by `dec_type`."""

_BETAS = {"squaredcos_cap_v2": "cosine"}
_DECODER = "decoder."

# settings that the training calls otherwise than the networks do
_RENAMED = {
    "encoder_type": "enc_type", "decoder_type": "dec_type", "quantizer_type": "quant_type",
}  # fmt: skip

_DAMAGE = (
    EOFError, KeyError, OSError, RuntimeError, SafetensorError, TypeError, ValueError,
    ValidationError, pickle.UnpicklingError, yaml.YAMLError,
)  # fmt: skip


def load(
    place: Path | str, reads: str | None = None, name: str | None = None, size: int = SIZE
) -> Tokenizer:
    """A published tokenizer, on the CPU; `save` makes it a folder like any other.

    Those of images, depth, normals and edges decode by diffusion. One whose decoder is missing, or
    is of a kind that is not supported, makes tokens and says on decoding why it cannot.

    Args:
        place: an id, a folder or a file.
        reads: the modality that it encodes; by default what the repository is named after.
        name: what its tokens are called, `tok_<name>`; by default as in 4M (`semseg`, `clip`) where
            the repository's name tells the modality, else as `reads`.
        size: side of the crops that it is for, in pixels.

    Raises:
        ConfigError: not such a tokenizer, or one that is not supported.
        MissingPackageError: it is not on this machine and cannot be fetched.
        UnknownNameError: a modality that nobody knows.
    """
    path = _located(place)
    definition, name = _modality_of(place, reads, name)
    try:
        settings, state = _read(path)
        if "MLP" in settings.get("enc_type", ""):
            return VectorTokenizer(definition, _vector_network(settings, state), name)
        if definition.name == "sam_mask":
            return MaskTokenizer(definition, _mask_network(settings, state))
        network = _dense_network(settings, state, size)
        _refuse_other_channels(definition, network.shape)
        patch = settings.get("patch_size", 16)
        if isinstance(network, VQAutoencoder):
            return VQTokenizer(definition, size, patch, network, name)
        if isinstance(network, DiVAE):
            sampling = _sampling(settings, definition)
            return DiffusionTokenizer(definition, size, patch, network, name, sampling)
        why = _no_decoder(settings, state)
        return EncoderOnlyTokenizer(definition, size, patch, network, name, why)
    except ConfigError:
        raise
    except _DAMAGE as error:
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(f"{path}: not a tokenizer of the reference: {reason}") from error


def _located(place: Path | str) -> Path:
    path = Path(place)
    if str(place).startswith(PUBLISHER) and not path.exists():
        path = HubWeights(str(place)).folder()
    if not path.exists():
        raise ConfigError(f"{path}: no such file or folder, and no id of a published tokenizer")
    return path


def _modality_of(
    place: Path | str, reads: str | None, name: str | None
) -> tuple[Modality, str | None]:
    if reads is None:
        parts = [part for part in reversed(Path(place).parts) if "4M_tokenizers_" in part]
        match = re.search(r"4M_tokenizers_(.+?)_\d+k", parts[0]) if parts else None
        if match is None or match[1] not in _READS:
            raise ConfigError(
                f"{place}: its name does not tell the modality, or one that there is a tokenizer "
                f"for ({', '.join(_READS)}); say which it reads"
            )
        reads, default = _READS[match[1]]
        name = name or default
    return modalities.modality(reads), name


def _refuse_other_channels(definition: Modality, config: EncoderConfig) -> None:
    is_classes = definition.kind is Kind.CLASSES
    if is_classes is not (config.labels > 0):
        raise ConfigError(f"{definition.name}: the tokenizer is of {'no ' * is_classes}class maps")
    if not is_classes and definition.channels != config.channels:
        raise ConfigError(
            f"{definition.name}: found {definition.channels} channels, the tokenizer has "
            f"{config.channels}"
        )


def _read(path: Path) -> tuple[dict[str, Any], State]:
    """Constructor arguments of the reference's network, and its weights."""
    file = path / WEIGHTS_FILE if path.is_dir() else path
    if file.suffix == ".pth":
        with torch.serialization.safe_globals([argparse.Namespace]):
            checkpoint = torch.load(file, map_location="cpu", weights_only=True)
        settings, state = vars(checkpoint.get("args", argparse.Namespace())), checkpoint["model"]
    else:
        with safe_open(file, framework="pt") as tensors:
            metadata = tensors.metadata() or {}
            state = {each: tensors.get_tensor(each) for each in tensors.keys()}  # noqa: SIM118
        settings = {key: yaml.safe_load(value) for key, value in metadata.items()}
    beside = file.with_name("config.json")
    if beside.is_file():
        settings = json.loads(beside.read_text(encoding="utf-8"))
    renamed = {_RENAMED.get(key, key): value for key, value in settings.items()}
    return renamed, {each: value.float() for each, value in state.items()}


def _vector_network(settings: Mapping[str, Any], state: State) -> BottleneckAutoencoder:
    encoder, decoder = (_mlp(settings[each]) for each in ("enc_type", "dec_type"))
    if settings.get("quant_type") != "memcodes" or encoder["dim"] != decoder["dim"]:
        raise ConfigError(
            f"found quantizer {settings.get('quant_type')} between MLPs of widths "
            f"{encoder['dim']} and {decoder['dim']}; expected memcodes between equal ones"
        )
    config = BottleneckConfig(
        channels=_channels(state),
        dim=encoder["dim"],
        encoder_depth=encoder["depth"],
        decoder_depth=decoder["depth"],
        expansion=encoder["expansion"],
        latent=settings["latent_dim"],
        books=settings["num_codebooks"],
        codes=settings["codebook_size"],
    )
    with torch.device("meta"):
        network = BottleneckAutoencoder(config)
    network.load_state_dict(state, assign=True)
    return network


def _mlp(name: str) -> dict[str, int]:
    """Of `BottleneckMLP/B_<depth>-Wi_<width>`, with `-E_<expansion>` where that is not 4."""
    match = re.fullmatch(r"BottleneckMLP/\w_(\d+)-\w+_(\d+)(?:-\w+_(\d+))?", name)
    if match is None:
        raise ConfigError(f"found network {name!r}, expected BottleneckMLP/B_<depth>-Wi_<width>")
    depth, dim, expansion = match.groups()
    return {"depth": int(depth), "dim": int(dim), "expansion": int(expansion or 4)}


def _mask_network(settings: Mapping[str, Any], state: State) -> VQAutoencoder:
    """Of a transformer on each side, the second with or without convolutions at its end."""
    _refuse_other_quantizers(settings)
    dim, depth, heads = _transformer(settings.get("enc_type", "vit_b_enc"), "enc")
    widths = _transformer(settings.get("dec_type", "vit_b_dec"), "dec")
    if (widths[0], widths[2]) != (dim, heads):
        raise ConfigError("found a decoder of another width than the encoder's: not supported")
    patch = settings.get("patch_size", 16)
    config = AutoencoderConfig(
        channels=_channels(state),
        # settings say the size of images; that of masks is in the positions
        size=state["encoder.pos_emb"].shape[-1] * patch,
        patch=patch,
        dim=dim,
        encoder_depth=depth,
        decoder_depth=widths[1],
        heads=heads,
        latent=settings["latent_dim"],
        codes=settings["codebook_size"],
        post_mlp=settings.get("post_mlp", False),
        out_conv=any(name.startswith("decoder.out_conv.") for name in state),
    )
    with torch.device("meta"):
        network = VQAutoencoder(config)
    network.load_state_dict(state, assign=True)
    return network


def _dense_network(settings: Mapping[str, Any], state: State, size: int) -> TokenEncoder:
    _refuse_other_quantizers(settings)
    dim, depth, heads = _transformer(settings.get("enc_type", "vit_b_enc"), "enc")
    patch = settings.get("patch_size", 16)
    if size % patch:
        raise ConfigError(f"size {size} is not a multiple of the tokenizer's patch of {patch}")
    # the encoder of a feature map sees a cell where that of an image sees a patch
    is_map = state["encoder.proj.weight"].shape[-1] == 1
    shape: dict[str, Any] = {
        "channels": _channels(state),
        "labels": len(state["cls_emb.weight"]) if "cls_emb.weight" in state else 0,
        "size": size // patch if is_map else size,
        "patch": 1 if is_map else patch,
        "dim": dim,
        "encoder_depth": depth,
        "heads": heads,
        "latent": settings.get("latent_dim", 32),
        "codes": settings.get("codebook_size", 16_384),
        "post_mlp": settings.get("post_mlp", False),
    }
    with torch.device("meta"):
        network = _empty_network(settings, state, shape)
    if isinstance(network, EncoderOnly):
        state = {k: v for k, v in state.items() if not k.startswith(_DECODER)}
    network.load_state_dict(resized_state(state, network.shape.grid), assign=True)
    return network


def _empty_network(
    settings: Mapping[str, Any], state: State, shape: dict[str, Any]
) -> TokenEncoder:
    if "post_quant_proj.weight" in state:
        dim, depth, heads = _transformer(settings.get("dec_type", "vit_b_dec"), "dec")
        if (dim, heads) != (shape["dim"], shape["heads"]) or _has_other_decoder(settings):
            raise ConfigError(
                "found a decoder of another width or patch than the encoder's, or one that "
                "ends in convolutions: it is not supported"
            )
        return VQAutoencoder(AutoencoderConfig(**shape, decoder_depth=depth))
    if _no_decoder(settings, state):
        return EncoderOnly(EncoderConfig(**shape))
    unet = _UNETS[_diffusion_decoder(settings)]
    if shape["size"] % unet.multiple:
        raise ConfigError(
            f"size {shape['size']} is not a multiple of {unet.multiple}, as its decoder needs"
        )
    diffusion = _diffusion(settings)
    return DiVAE(DiVAEConfig(encoder=EncoderConfig(**shape), unet=unet, diffusion=diffusion))


def _no_decoder(settings: Mapping[str, Any], state: State) -> str | None:
    """Why its tokens cannot be decoded; nothing if they can, by diffusion."""
    if not any(name.startswith(_DECODER) for name in state):
        return "its weights have no decoder"
    kind = _diffusion_decoder(settings)
    if kind not in _UNETS:
        return f"its decoder is {kind!r}, and {', '.join(_UNETS)} alone is supported"
    return None


def _diffusion_decoder(settings: Mapping[str, Any]) -> str:
    return str(settings.get("dec_type", "unet_patched"))


def _diffusion(settings: Mapping[str, Any]) -> DiffusionConfig:
    # what is not said is as the reference's constructor has it, not as its recipes
    betas = str(settings.get("beta_schedule", "squaredcos_cap_v2"))
    predicts = settings.get("prediction_type", "v_prediction")
    if predicts not in PREDICTS:
        raise ConfigError(
            f"found prediction_type {predicts!r}, expected one of {', '.join(PREDICTS)}"
        )
    is_shifted = betas.startswith("shifted_cosine:")
    return DiffusionConfig(
        betas=_BETAS.get(betas, betas),
        steps=settings.get("num_train_timesteps", 1000),
        predicts=PREDICTS[predicts],
        # a shifted schedule ends with noise alone whatever the setting says
        zero_snr=is_shifted or settings.get("zero_terminal_snr", True),
    )


def _sampling(settings: Mapping[str, Any], definition: Modality) -> Sampling:
    # its thresholding never goes beyond 1, and so is no other than clipping; depth is in
    # deviations, many of which are beyond 1
    clips = settings.get("thresholding", True) or settings.get("clip_sample", False)
    # a pass of one sample is work enough: on a CPU, a filled batch would take minutes
    return Sampling(clip=clips and definition.kind is not Kind.DEPTH, at_once=1)


def _transformer(name: str, end: str) -> tuple[int, int, int]:
    match = re.fullmatch(rf"vit_(\w)_{end}", name)
    if match is None or match[1] not in _TRANSFORMERS:
        known = ", ".join(f"vit_{each}_{end}" for each in _TRANSFORMERS)
        raise ConfigError(f"found network {name!r}, expected one of {known}")
    return _TRANSFORMERS[match[1]]


def _refuse_other_quantizers(settings: Mapping[str, Any]) -> None:
    found = (
        settings.get("quant_type", "lucid"),
        settings.get("norm_codes", True),
        settings.get("num_codebooks", 1),
    )
    if found != ("lucid", True, 1):
        raise ConfigError(
            f"found quantizer {found[0]}, norm_codes {found[1]}, {found[2]} code books; expected "
            "lucid with normed codes and one book"
        )


def _has_other_decoder(settings: Mapping[str, Any]) -> bool:
    patch = settings.get("patch_size", 16)
    return bool(settings.get("out_conv")) or (settings.get("patch_size_dec") or patch) != patch


def _channels(state: State) -> int:
    """Of the input, or of the embedding of classes; checkpoints of a training do not say."""
    name = "encoder.linear_in.weight" if "encoder.linear_in.weight" in state else ""
    return state[name or "encoder.proj.weight"].shape[1]
