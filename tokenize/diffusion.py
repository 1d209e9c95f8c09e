"""Diffusion: how noise is added to values, what a network predicts of them, how it is removed.

A value at step t is `signal * value + spread * noise`, with signal² + spread² = 1, and signal² the
share that is kept, which falls from nearly 1 at step 0.
Shapes: B batch, C channels, H and W pixels, L latent width, T steps.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float, Int
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from fourmill.manifests.errors import ConfigError, MissingPackageError
from fourmill.tokenize.unet import Count

# Noisy values [B, C, H, W], their steps [B], and latents [B, L, h, w]: what is predicted of the
# values.
Denoiser = Callable[[Tensor, Tensor, Tensor], Tensor]

# our names of schedules, and theirs
_OF_DIFFUSERS = {
    "linear": "linear", "scaled_linear": "scaled_linear", "cosine": "squaredcos_cap_v2",
}  # fmt: skip
PREDICTS: dict[str, Literal["image", "noise", "velocity"]] = {
    "sample": "image", "epsilon": "noise", "v_prediction": "velocity",
}  # fmt: skip
"""What diffusers, and the reference, call what is predicted."""

_SHIFTED = "shifted_cosine:"
_ENDS = {"linear": (1e-4, 0.02), "scaled_linear": (0.00085, 0.012)}  # first and last beta
_LOG_RATIO = 15.0  # of signal to noise, the largest of a shifted cosine, as in the reference


def _known_betas(name: str) -> str:
    is_shifted = name.startswith(_SHIFTED) and _is_positive(name.removeprefix(_SHIFTED))
    if name not in _OF_DIFFUSERS and not is_shifted:
        raise ValueError(
            f"found betas {name!r}, expected one of {', '.join(_OF_DIFFUSERS)} or "
            f"{_SHIFTED}<a number above 0>"
        )
    return name


def _is_positive(text: str) -> bool:
    return re.fullmatch(r"\d*\.?\d+", text) is not None and float(text) > 0


class DiffusionConfig(BaseModel):
    """How much noise each step has, and what is predicted; the defaults are the reference's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    betas: Annotated[str, AfterValidator(_known_betas)] = Field(
        default="linear",
        description="how the noise grows from step to step: linear, scaled_linear (of latent "
        "diffusion), cosine, or shifted_cosine:<shift>, with less noise for shifts below 1",
    )
    steps: int = Field(default=1000, ge=2, description="steps from values to noise")
    predicts: Literal["image", "noise", "velocity"] = Field(
        default="image", description="what the network is trained to give"
    )
    zero_snr: bool = Field(
        default=True,
        description="leave nothing of the values at the last step, as sampling begins with nothing",
    )

    @staticmethod
    def of_diffusers(settings: Mapping[str, Any]) -> "DiffusionConfig":
        """That of a scheduler of diffusers, from its `scheduler_config.json`.

        Raises:
            ValueError: noise that grows otherwise than any of `betas`, or another prediction.
        """
        names = {theirs: ours for ours, theirs in _OF_DIFFUSERS.items()}
        betas = names.get(settings.get("beta_schedule", "linear"), "")
        ends = settings.get("beta_start", 1e-4), settings.get("beta_end", 0.02)
        predicts = PREDICTS.get(settings.get("prediction_type", "epsilon"))
        is_known = betas == "cosine" or (betas in _ENDS and ends == _ENDS[betas])
        if not is_known or predicts is None or settings.get("trained_betas") is not None:
            found = {
                name: settings.get(name)
                for name in ("beta_schedule", "beta_start", "beta_end", "prediction_type")
            }
            raise ValueError(f"found {found}, expected betas {', '.join(_OF_DIFFUSERS)} as usual")
        return DiffusionConfig(
            betas=betas,
            steps=settings.get("num_train_timesteps", 1000),
            predicts=predicts,
            zero_snr=bool(settings.get("rescale_betas_zero_snr", False)),
        )

    @model_validator(mode="after")
    def _says_something(self) -> "DiffusionConfig":
        if self.zero_snr and self.predicts == "noise":
            raise ValueError(
                "found zero_snr with predicts noise: at the last step the input is the noise, "
                "and says nothing of the image; predict image or velocity"
            )
        return self


class Sampling(BaseModel):
    """How noise is turned into values; part of what decides their bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sampler: Literal["ddpm", "ddim", "dpm"] = Field(
        default="ddim",
        description="ddpm adds new noise at each step; dpm (DPM-Solver++) needs the fewest steps",
    )
    steps: Count = Field(default=25, description="passes of the network")
    spacing: Literal["even", "quadratic"] = Field(
        default="quadratic",
        description="which steps: equally far apart, or denser where little noise is left, which "
        "is where few steps err most",
    )
    at_once: Count = Field(
        default=8,
        description="samples in a pass, always as many: another number may round differently",
    )
    clip: bool = Field(
        default=False,
        description="keep what is predicted of the values between -1 and 1 at every step",
    )


class Diffusion:
    """Noise in, noise out, for one configuration."""

    def __init__(self, config: DiffusionConfig) -> None:
        self.config = config
        # networks are made without values (`meta`) where a file has them, but no file has these
        with torch.device("cpu"):
            self.kept = kept_shares(config)

    def noisy(
        self,
        values: Float[Tensor, "B C H W"],
        noise: Float[Tensor, "B C H W"],
        steps: Int[Tensor, " B"],
    ) -> Float[Tensor, "B C H W"]:
        """Values with the noise of their steps."""
        signal, spread = self._scales(steps)
        return signal * values + spread * noise

    def target(
        self,
        values: Float[Tensor, "B C H W"],
        noise: Float[Tensor, "B C H W"],
        steps: Int[Tensor, " B"],
    ) -> Float[Tensor, "B C H W"]:
        """What a network should predict from `noisy`."""
        if self.config.predicts == "image":
            return values
        if self.config.predicts == "noise":
            return noise
        signal, spread = self._scales(steps)
        return signal * noise - spread * values

    def clean(
        self,
        predicted: Float[Tensor, "B C H W"],
        noisy: Float[Tensor, "B C H W"],
        steps: Int[Tensor, " B"],
    ) -> Float[Tensor, "B C H W"]:
        """The values that a prediction from `noisy` amounts to."""
        if self.config.predicts == "image":
            return predicted
        signal, spread = self._scales(steps)
        if self.config.predicts == "noise":
            return (noisy - spread * predicted) / signal
        return signal * noisy - spread * predicted

    def loss(
        self,
        denoiser: Denoiser,
        values: Float[Tensor, "B C H W"],
        latents: Float[Tensor, "B L _ _"],
        noise: Float[Tensor, "B C H W"],
        steps: Int[Tensor, " B"],
        cap: float | None = None,
    ) -> Float[Tensor, ""]:
        """Mean squared error of what is predicted.

        Args:
            cap: weigh each sample's error, in terms of the image, with the ratio of signal to noise
                of its step, but no more than this (5 is usual): steps with hardly any noise would
                count for all others. The last step of `zero_snr` then counts for nothing. None is
                the plain mean, as in the reference.
        """
        noisy = self.noisy(values, noise, steps)
        predicted = denoiser(noisy, steps, latents)
        squares_B = (predicted - self.target(values, noise, steps)).square().mean(dim=(1, 2, 3))
        if cap is None:
            return squares_B.mean()
        kept_B = self.kept.to(steps.device)[steps]
        ratio_B = kept_B / (1 - kept_B)
        # how much the same error of the image is in what is predicted
        scale_B = {
            "image": torch.ones_like(ratio_B), "noise": ratio_B, "velocity": ratio_B + 1,
        }[self.config.predicts]  # fmt: skip
        return (ratio_B.clamp(max=cap) / scale_B * squares_B).mean()

    def sample(
        self,
        denoiser: Denoiser,
        latents: Float[Tensor, "B L _ _"],
        shape: tuple[int, int, int],
        seeds: Sequence[int],
        sampling: Sampling,
    ) -> Float[Tensor, "B _ _ _"]:
        """Values made from noise; each depends on its latents and its seed, not on the batch.

        Args:
            shape: channels, height and width of one sample.
            seeds: one a sample, of all noise that it gets.

        Raises:
            ConfigError: more steps than the diffusion has, or seeds that are not one a sample.
            MissingPackageError: there is no `diffusers`.
        """
        if sampling.steps > self.config.steps:
            raise ConfigError(
                f"found {sampling.steps} steps of sampling, expected at most the "
                f"{self.config.steps} of the diffusion"
            )
        if len(seeds) != len(latents):
            raise ConfigError(f"found {len(seeds)} seeds, expected one for each of {len(latents)}")
        parts = [latents.new_zeros(0, *shape)]
        for start in range(0, len(seeds), sampling.at_once):
            stop = start + sampling.at_once
            picks = [min(index, len(seeds) - 1) for index in range(start, stop)]
            part = self._sample(
                denoiser, latents[picks], shape, [seeds[pick] for pick in picks], sampling
            )
            parts.append(part[: len(seeds) - start])
        return torch.cat(parts)

    @torch.no_grad()
    def _sample(
        self,
        denoiser: Denoiser,
        latents: Tensor,
        shape: tuple[int, int, int],
        seeds: Sequence[int],
        sampling: Sampling,
    ) -> Tensor:
        # on the CPU, so that a seed means the same on every device
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        noise = [torch.randn(shape, generator=generator) for generator in generators]
        values = torch.stack(noise).to(latents.device)
        scheduler = self._scheduler(sampling)
        for step in scheduler.timesteps:
            steps = torch.full((len(seeds),), int(step), device=latents.device)
            clean = self.clean(denoiser(values, steps, latents), values, steps)
            clean = clean.clamp(-1, 1) if sampling.clip else clean
            values = scheduler.step(clean, step, values, generator=generators).prev_sample
        return values

    def _scheduler(self, sampling: Sampling) -> Any:
        try:
            diffusers: Any = import_module("diffusers")
        except ImportError as error:
            raise MissingPackageError(
                "sampling needs diffusers: pip install 'fourmill[diffusion]'"
            ) from error
        config = self.config
        shared = {
            "num_train_timesteps": config.steps,
            **_named_betas(config),
            "rescale_betas_zero_snr": config.zero_snr,
            "prediction_type": "sample",  # `clean` has seen to the rest
        }
        if sampling.sampler == "ddpm":
            scheduler = diffusers.DDPMScheduler(**shared, clip_sample=False)
        else:
            # The first order is DDIM. DDIMScheduler ends off the clean image unless the number of
            # steps divides that of the diffusion.
            order = 1 if sampling.sampler == "ddim" else 2
            scheduler = diffusers.DPMSolverMultistepScheduler(
                **shared, solver_order=order, final_sigmas_type="zero"
            )
        scheduler.set_timesteps(timesteps=steps_of(sampling, config.steps))
        return scheduler

    def _scales(self, steps: Int[Tensor, " B"]) -> tuple[Tensor, Tensor]:
        kept = self.kept.to(steps.device)[steps][:, None, None, None]
        return kept.sqrt(), (1 - kept).sqrt()


def steps_of(sampling: Sampling, steps: int) -> list[int]:
    """Steps of the diffusion at which the network is asked, from the last one down.

    >>> steps_of(Sampling(steps=4, spacing="even"), 1000)
    [999, 749, 499, 249]
    >>> steps_of(Sampling(steps=4), 1000)
    [999, 561, 249, 61]
    """
    power = {"even": 1, "quadratic": 2}[sampling.spacing]
    count = sampling.steps
    # at least `left`, so that no two are the same
    return [max(left, steps * left**power // count**power) - 1 for left in range(count, 0, -1)]


def kept_shares(config: DiffusionConfig) -> Float[Tensor, " T"]:
    """The share of the values' variance that each step keeps."""
    count = config.steps
    if config.betas.startswith(_SHIFTED):
        return _shifted_cosine(config)
    if config.betas in _ENDS:
        # the root of the scaled one is what grows by equal steps
        power = 0.5 if config.betas == "scaled_linear" else 1.0
        first, last = (end**power for end in _ENDS[config.betas])
        betas = torch.linspace(first, last, count, dtype=torch.float64) ** (1 / power)
    else:
        turns = (torch.arange(count + 1, dtype=torch.float64) / count + 0.008) / 1.008
        whole = (turns * math.pi / 2).cos() ** 2
        betas = (1 - whole[1:] / whole[:-1]).clamp(max=0.999)
    signal = (1 - betas).cumprod(0).sqrt()
    if config.zero_snr:
        # the first step stays as it is
        signal = (signal - signal[-1]) * signal[0] / (signal[0] - signal[-1])
    return (signal**2).to(torch.float32)


def _shifted_cosine(config: DiffusionConfig) -> Float[Tensor, " T"]:
    """The cosine's shares with the ratio of signal to noise divided by the square of a shift
    (Hoogeboom et al. 2023, arXiv:2305.18231); the first and the last ratio are finite."""
    shift = float(config.betas.removeprefix(_SHIFTED))
    turns = torch.linspace(0, 1, config.steps, dtype=torch.float64)
    ratio = -2 * ((math.pi / 2 * turns).tan().log() + math.log(shift))
    kept = ratio.clamp(-_LOG_RATIO, _LOG_RATIO).sigmoid()
    if config.zero_snr:
        kept[-1] = 0  # the others stay as they are
    return kept.to(torch.float32)


def _named_betas(config: DiffusionConfig) -> dict[str, Any]:
    """The schedule as diffusers is told it."""
    if config.betas in _OF_DIFFUSERS:
        first, last = _ENDS.get(config.betas, _ENDS["linear"])
        name = _OF_DIFFUSERS[config.betas]
        return {"beta_schedule": name, "beta_start": first, "beta_end": last}
    kept = kept_shares(config).to(torch.float64)
    return {"trained_betas": (1 - kept / torch.cat([torch.ones(1), kept[:-1]])).tolist()}
