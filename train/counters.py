"""Random numbers from counters: the same for a sample whatever the batch, worker or world size.

Each number is a hash of (seed, sample id, visit, name of the stream, index), by the finaliser of
SplitMix64 (Steele et al. 2014), computed where the batch is. So there is no state to save.
"""

import hashlib
from functools import lru_cache

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

Keys = Int64[Tensor, " batch"]

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed number; products wrap around
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB
_ATTEMPTS = 8  # of the rejection sampler: each accepts 95 %
_PARTS = [1, _ATTEMPTS, _ATTEMPTS, _ATTEMPTS]


def sample_keys(seed: int, sample: Int64[Tensor, " batch"], visit: Int64[Tensor, " batch"]) -> Keys:
    """One key a sample; all numbers of a (sample, visit) are drawn from it."""
    start = torch.full_like(sample, _stream(f"seed {seed}"))
    return _mix(_mix(start + sample * _GOLDEN) + visit * _GOLDEN)


def hashes(keys: Keys, stream: str, count: int, start: int = 0) -> Int64[Tensor, "batch {count}"]:
    """Hashes number `start` to `start + count` of a stream, evenly over all int64."""
    index = torch.arange(start + 1, start + count + 1, device=keys.device)
    return _mix(_mix(keys + _stream(stream))[:, None] + index * _GOLDEN)


def uniforms(
    keys: Keys, stream: str, count: int, start: int = 0
) -> Float64[Tensor, "batch {count}"]:
    """Numbers in (0, 1)."""
    return (_shift(hashes(keys, stream, count, start), 11).double() + 0.5) / 2**53


def integers(
    keys: Keys, stream: str, low: int, high: Int64[Tensor, " batch"] | int
) -> Int64[Tensor, " batch"]:
    """One integer a sample, evenly in `low` to `high`, both included."""
    span = high - low + 1
    return (uniforms(keys, stream, 1)[:, 0] * span).long() + low


def log_dirichlet(
    keys: Keys, stream: str, alpha: Float64[Tensor, "batch parts"], draws: int = 1
) -> Float64[Tensor, "batch {draws} parts"]:
    """Logarithms of Dirichlet shares; parts with alpha 0 get next to nothing.

    Logarithms, because alphas near 0 give shares that no float holds.
    """
    alpha = alpha.clamp(min=1e-9)[:, None].expand(-1, draws, -1)
    return _log_gamma(keys, stream, alpha).log_softmax(-1)


def _log_gamma(keys: Keys, stream: str, alpha: Tensor) -> Tensor:
    """Logarithms of Gamma(alpha, 1) draws, by Marsaglia and Tsang (2000)."""
    size = alpha[0].numel()
    noise = uniforms(keys, stream, size * (3 * _ATTEMPTS + 1)).view(*alpha.shape, -1)
    boost, angle, radius, accept = torch.split(noise, _PARTS, dim=-1)
    d = (torch.where(alpha < 1, alpha + 1, alpha) - 1 / 3)[..., None]
    x = (-2 * radius.log()).sqrt() * (2 * torch.pi * angle).cos()
    root = (1 + x / (9 * d).sqrt()).clamp(min=1e-12)
    log_v = 3 * root.log()
    accepted = accept.log() < 0.5 * x * x + d * (1 - root**3 + log_v)
    first = accepted.to(torch.uint8).argmax(-1, keepdim=True)
    log_gamma = (d.log() + log_v).gather(-1, first)[..., 0]
    return torch.where(alpha < 1, log_gamma + boost[..., 0].log() / alpha, log_gamma)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * _MIX_1
    x = (x ^ _shift(x, 27)) * _MIX_2
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical shift to the right: torch's own copies the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


@lru_cache(maxsize=1024)
def _stream(name: str) -> int:
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
