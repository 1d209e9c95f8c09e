"""How long steps take beside loading."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

LIGHT = 4.0  # times the seconds of loading
BRIEF = 0.05  # seconds for a block: about what Ray's calls for a block apart cost all processes
CALL_SECONDS = 0.4  # of work in one call of a worker that does all of a block
MOST_BLOCKS = 8  # in one such call
_STICKY = (
    2.0  # a limit is so much higher for what was light before, or the two ways would alternate
)


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
    _light: set[tuple[str, ...]] = field(default_factory=set)

    def note_load(self, samples: int, seconds: float) -> None:
        """A block was loaded."""
        self._load.note(samples, seconds)

    def note_run(self, step: str, samples: int, seconds: float) -> None:
        """A step ran on a block."""
        self._steps[step].note(samples, seconds)

    def is_light(self, steps: Sequence[str], samples: int) -> bool:
        """Whether steps together take less than a few times as long as loading, or next to nothing
        for a block of so many samples; `False` as long as some of them have not been seen."""
        if not self._load.samples or not all(self._steps[name].samples for name in steps):
            return False
        taken = tuple(steps)
        seconds = self._run_seconds(steps)
        limit = max(LIGHT * self._load.value, BRIEF / samples)
        is_light = seconds < limit * (_STICKY if taken in self._light else 1)
        (self._light.add if is_light else self._light.discard)(taken)
        return is_light

    def blocks_in_call(self, steps: Sequence[str], samples: int) -> int:
        """How many light blocks of so many samples a worker is asked for at a time, so that asking
        costs little beside the work."""
        seconds = samples * (self._load.value + self._run_seconds(steps))
        return max(1, min(MOST_BLOCKS, int(CALL_SECONDS / max(seconds, 1e-6))))

    def _run_seconds(self, steps: Sequence[str]) -> float:
        return sum(self._steps[name].value for name in steps)
