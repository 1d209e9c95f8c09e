"""What model a file of weights is of: its settings as the reference writes them, both ways.

A file's metadata has a string for each setting; `config.json` beside it has the same values.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from fourmill.manifests import configs, modalities
from fourmill.manifests.errors import ConfigError, UnknownNameError
from fourmill.manifests.modalities import Masking, Modality
from fourmill.train.domains import Domains, reference_name
from fourmill.train.exchange import Names
from fourmill.train.model import FourM, ModelShape

OWN = "fourmill"
"""The setting that the reference does not know: definitions of modalities, and the whole shape."""

_MODALITIES = TypeAdapter(tuple[Modality, ...])
_SHAPE = TypeAdapter(ModelShape)
_NORMS = ("encoder_embeddings.{}.mod_emb", "decoder_embeddings.{}.mod_emb")


class ReferenceConfig(BaseModel):
    """Settings of the reference's model, with its defaults; others than these do not matter."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    domains_in: tuple[str, ...] = Field(min_length=1)
    domains_out: tuple[str, ...] = Field(min_length=1)
    dim: int = Field(ge=4)
    encoder_depth: int = Field(ge=1)
    decoder_depth: int = Field(ge=1)
    num_heads: int = Field(ge=1)
    mlp_ratio: float = Field(default=4.0, gt=0)
    qkv_bias: bool = True
    proj_bias: bool = True
    mlp_bias: bool = True
    norm_bias: bool = True
    act_layer: Literal["GELU", "SiLU"] = "GELU"
    gated_mlp: bool = False
    qk_norm: bool = False
    decoder_causal_mask: bool = False
    decoder_sep_mask: bool = True

    @model_validator(mode="after")
    def _is_supported(self) -> "ReferenceConfig":
        biases = {self.qkv_bias, self.proj_bias, self.mlp_bias, self.norm_bias}
        if len(biases) != 1:
            raise ValueError("biases in some layers and not in others are not supported")
        if self.gated_mlp is not (self.act_layer == "SiLU"):
            raise ValueError(
                f"{self.act_layer} in {'' if self.gated_mlp else 'un'}gated MLPs is not supported: "
                f"only SiLU in gated ones, GELU in others"
            )
        return self

    def shape(self, state: Names) -> ModelShape:
        """The model's shape; what the settings leave open is seen from the tensors."""
        both = set(self.domains_in) & set(self.domains_out)
        pairs = [[state.get(name.format(each)) for name in _NORMS] for each in both]
        registers = state.get("register_tokens")
        return ModelShape(
            dim=self.dim,
            heads=self.num_heads,
            mlp_ratio=self.mlp_ratio,
            gated=self.gated_mlp,
            bias=self.norm_bias,
            qk_norm=self.qk_norm,
            encoder_depth=self.encoder_depth,
            decoder_depth=self.decoder_depth,
            registers=0 if registers is None else registers.shape[1],
            share_modality_embeddings=all(
                one is not None and other is not None and one.equal(other) for one, other in pairs
            ),
            separate_targets=self.decoder_sep_mask,
            causal_targets=self.decoder_causal_mask,
        )


def settings_of(model: FourM, names: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The settings of a model, as `config.json` has them.

    Args:
        names: what modalities are called there, where otherwise than in the model.
    """
    shape, domains, names = model.shape, model.domains, names or {}
    pixels = [each for each in domains.modalities if each.masking is Masking.PIXELS]
    grids = pixels or [each for each in domains.modalities if each.input_size]
    settings = {
        "domains_in": [names.get(each, each) for each in domains.inputs],
        "domains_out": [names.get(each, each) for each in domains.targets],
        "image_size": min((each.input_size for each in grids), default=224),
        "patch_size": min((each.patch_size for each in grids), default=16),
        "dim": shape.dim,
        "encoder_depth": shape.encoder_depth,
        "decoder_depth": shape.decoder_depth,
        "num_heads": shape.heads,
        "mlp_ratio": shape.mlp_ratio,
        "qkv_bias": shape.bias,
        "proj_bias": shape.bias,
        "mlp_bias": shape.bias,
        "norm_bias": shape.bias,
        "act_layer": "SiLU" if shape.gated else "GELU",
        "gated_mlp": shape.gated,
        "qk_norm": shape.qk_norm,
        "share_modality_embeddings": False,  # tied tensors are written out
    }
    # that of features of images does not take these
    unusual = {
        "num_register_tokens": (shape.registers, 0),
        "decoder_sep_mask": (shape.separate_targets, True),
        "decoder_causal_mask": (shape.causal_targets, False),
    }
    return settings | {key: own for key, (own, usual) in unusual.items() if own != usual}


def reference_config(model: FourM, names: Mapping[str, str] | None = None) -> dict[str, str]:
    """The model's settings as the reference writes them into a file's metadata."""
    return {name: str(value) for name, value in settings_of(model, names).items()}


def own_config(model: FourM) -> dict[str, str]:
    """Settings from which exactly this model can be made, of whatever modalities."""
    whole = {
        "modalities": [each.record() for each in model.domains.modalities],
        "shape": asdict(model.shape),
    }
    return reference_config(model) | {OWN: json.dumps(whole, sort_keys=True)}


def read_settings(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The values in a file's metadata.

    Raises:
        yaml.YAMLError: a setting that nobody can have written so.
    """
    return {
        name: json.loads(text) if name == OWN else yaml.safe_load(text)
        for name, text in metadata.items()
    }


def described_by(
    settings: Mapping[str, Any], state: Names, file: Path
) -> tuple[Domains, ModelShape]:
    """The modalities and the shape that settings say.

    Args:
        state: the tensors that the file has, under the reference's names.

    Raises:
        ConfigError: settings that are missing or not supported, or a modality that nobody knows.
    """
    config = configs.validate(ReferenceConfig, settings, str(file))
    if OWN in settings:
        try:
            definitions = _MODALITIES.validate_python(settings[OWN]["modalities"])
            shape = _SHAPE.validate_python(settings[OWN]["shape"])
        except (KeyError, TypeError, ValidationError) as error:
            raise ConfigError(f"{file}: its metadata {OWN!r} is not readable: {error}") from error
    else:
        definitions = known_modalities([*config.domains_in, *config.domains_out], file)
        shape = config.shape(state)
    try:
        return Domains.of(definitions, config.domains_in, config.domains_out), shape
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error


def known_modalities(names: list[str], file: Path) -> tuple[Modality, ...]:
    """Definitions by name.

    Raises:
        ConfigError: one that a model cannot see, or that nobody knows; says which are known.
    """
    known = [each for each in modalities.modality_names() if modalities.modality(each).masking]
    for name in names:
        if name not in known:
            reason = UnknownNameError("modality that a model can see", name, known)
            raise ConfigError(
                f"{file}: {reason}. Of a modality of your own take the run's folder, or what "
                f"`fourmill convert --to fourmill` makes of it"
            )
    return tuple(modalities.modality(name) for name in sorted(set(names)))


def reference_names(domains: Domains) -> dict[str, str]:
    """What the reference calls the modalities of a model."""
    return {each.name: reference_name(each) for each in domains.modalities}


def foreign_to_reference(domains: Domains) -> list[str]:
    """What the reference has to be taught before it can read such a model, a line each."""
    published = {*modalities.FOURM_21, *_LARGE}
    notes = []
    for each in domains.modalities:
        name = reference_name(each)
        if name not in published:
            notes.append(f"{name}: not a modality of the reference")
            continue
        theirs = modalities.modality(name)
        for what in ("vocab_size", "input_size", "patch_size"):
            own, other = getattr(each, what), getattr(theirs, what)
            if own != other:
                notes.append(f"{name}: {what} {own}, the reference has {other}")
    return notes


_LARGE = (
    "rgb@448", "tok_rgb@448", "tok_depth@448", "tok_normal@448", "tok_semseg@448", "tok_clip@448",
)  # fmt: skip
