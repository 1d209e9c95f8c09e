"""Random numbers from counters: the same for a sample whatever the batch, worker or world size.

Each number is a hash of (seed, sample id, visit, name of the stream, index), computed where the
batch is. So there is no state to save. Hashes of 64 bits are those of SplitMix64 (Steele et al.
2014); where each place of a sample needs one, hashes of 32 bits do, which take a quarter of the
time.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float64, Int32, Int64
from torch import Tensor

Keys = Int64[Tensor, " batch"]

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed number; products wrap around
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB
_GOLDEN_32 = -1640531527  # 0x9E3779B9
_MIX_1_32 = 2146121005  # 0x7FEB352D
_MIX_2_32 = -2073254261  # 0x846CA68B
_PAIRS = 3  # of attempts of the rejection sampler, which accepts each with at least 95 %


def sample_keys(seed: int, sample: Int64[Tensor, " batch"], visit: Int64[Tensor, " batch"]) -> Keys:
    """One key a sample; all numbers of a (sample, visit) are drawn from it."""
    start = torch.full_like(sample, _stream(f"seed {seed}"))
    return _mix(_mix(start + sample * _GOLDEN) + visit * _GOLDEN)


def streams(names: Sequence[str]) -> Int64[Tensor, " streams"]:
    """What `split` knows streams by."""
    return torch.tensor([_stream(name) for name in names], dtype=torch.int64)


def split(
    keys: Keys, streams: Int64[Tensor, " streams"]
) -> Int64[Tensor, "batch streams"]:  # fmt: skip
    """A key of its own for each stream of each sample."""
    return _mix(keys[:, None] + streams)


def hashes(keys: Keys, stream: str, count: int) -> Int64[Tensor, "batch {count}"]:
    """The first hashes of a stream, evenly over all int64."""
    index = torch.arange(1, count + 1, device=keys.device)
    return _mix(_mix(keys + _stream(stream))[:, None] + index * _GOLDEN)


def short_hashes(
    keys: Int64[Tensor, "*#rows"], index: Int32[Tensor, "*#rows"]
) -> Int32[Tensor, "*rows"]:
    """Hashes number `index` of keys, evenly over all int32."""
    x = index * _GOLDEN_32 + keys.int()
    x ^= _shift(x, 16, 32)
    x *= _MIX_1_32
    x ^= (keys >> 32).int()
    x ^= _shift(x, 15, 32)
    x *= _MIX_2_32
    x ^= _shift(x, 16, 32)
    return x


def uniforms(keys: Keys, stream: str, count: int) -> Float64[Tensor, "batch {count}"]:
    """Numbers in (0, 1)."""
    return (_shift(hashes(keys, stream, count), 11).double() + 0.5) / 2**53


def integers(
    keys: Keys, stream: str, low: int, high: Int64[Tensor, " batch"] | int
) -> Int64[Tensor, " batch"]:
    """One integer a sample, evenly in `low` to `high`, both included."""
    span = high - low + 1
    return (uniforms(keys, stream, 1)[:, 0] * span).long() + low


def log_dirichlet(
    keys: Keys, stream: str, alpha: Float64[Tensor, "batch parts"]
) -> Float64[Tensor, "batch parts"]:
    """Logarithms of Dirichlet shares; parts with alpha 0 get next to nothing.

    Logarithms, because alphas near 0 give shares that no float holds.
    """
    return _log_gamma(keys, stream, alpha.clamp(min=LEAST_ALPHA)).log_softmax(-1)


LEAST_ALPHA = 1e-9
"""Stands for an alpha of 0."""


def _log_gamma(keys: Keys, stream: str, alpha: Tensor) -> Tensor:
    """Logarithms of Gamma(alpha, 1) draws, by Marsaglia and Tsang (2000)."""
    noise = uniforms(keys, stream, alpha.shape[1] * (4 * _PAIRS + 1)).view(*alpha.shape, -1)
    boost, angle, radius, accept = torch.split(noise, [1, _PAIRS, _PAIRS, 2 * _PAIRS], dim=-1)
    d = (torch.where(alpha < 1, alpha + 1, alpha) - 1 / 3)[..., None]
    angle, radius = 2 * torch.pi * angle, (-2 * radius.log()).sqrt()
    x = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=-1)
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


def _shift(x: Tensor, by: int, bits: int = 64) -> Tensor:
    """Logical shift to the right: torch's own copies the sign."""
    return (x >> by).bitwise_and_((1 << (bits - by)) - 1)


def _stream(name: str) -> int:
    """FNV-1a (Fowler, Noll, Vo) of a name, which a compiler can follow."""
    value = 0xCBF29CE484222325
    for byte in name.encode():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value - 2**64 if value >= 2**63 else value
