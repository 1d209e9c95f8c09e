"""How long steps take beside loading."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

LIGHT = 4.0  # times the seconds of loading


@dataclass
class _Mean:
    seconds: float = 0.0
    samples: int = 0

    def note(self, samples: int, seconds: float) -> None:
        self.samples += samples
        self.seconds += seconds

    @property
    def value(self) -> float:
        return self.seconds / self.samples


@dataclass
class Pace:
    """Seconds a sample, of loading and of each step, on average over what was seen."""

    _load: _Mean = field(default_factory=_Mean)
    _steps: dict[str, _Mean] = field(default_factory=lambda: defaultdict(_Mean))

    def note_load(self, samples: int, seconds: float) -> None:
        """A block was loaded."""
        self._load.note(samples, seconds)

    def note_run(self, step: str, samples: int, seconds: float) -> None:
        """A step ran on a block."""
        self._steps[step].note(samples, seconds)

    def is_light(self, steps: Sequence[str]) -> bool:
        """Whether steps together take less than a few times as long as loading; `False` as long as
        some of them have not been seen."""
        if not self._load.samples or not all(self._steps[name].samples for name in steps):
            return False
        return sum(self._steps[name].value for name in steps) < LIGHT * self._load.value
