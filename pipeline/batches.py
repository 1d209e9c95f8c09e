"""How a step is run on many samples so that none of them harms another."""

import gc
import sys
from collections.abc import Sequence

from fourmill.labelers.base import Sample
from fourmill.manifests.errors import SampleError
from fourmill.pipeline.steps import Outcome, Step
from fourmill.pipeline.units import Excluded


class Batches:
    """Batches of the size that a step declares, and of half as many samples whenever its device
    runs out of memory.

    Attributes:
        step: what is run; loaded by whoever runs it.
        size: samples that the step gets at once.
    """

    def __init__(self, step: Step, size: int = 0) -> None:
        self.step = step
        self.size = size or step.resources.batch_size

    def run(
        self, samples: Sequence[Sample], excluded: Excluded | None = None, divisor: int = 1
    ) -> list[Outcome]:
        """One outcome a sample; what a sample raises, or lacks, becomes its own failure.

        Args:
            excluded: rows that fail for a reason known before.
            divisor: of the batch size, for these samples only.
        """
        outcomes: list[Outcome | None] = [
            (excluded or {}).get(row) or _missing(self.step, each)
            for row, each in enumerate(samples)
        ]
        ready = [row for row, each in enumerate(outcomes) if each is None]
        start = 0
        while start < len(ready):
            rows = ready[start : start + max(1, self.size // divisor)]
            results = self._run([samples[row] for row in rows])
            if results is None:
                continue
            for row, result in zip(rows, results, strict=True):
                outcomes[row] = result
            start += len(rows)
        return [each for each in outcomes if each is not None]

    def _run(self, batch: Sequence[Sample]) -> list[Outcome] | None:
        """Outcomes; `None` if the device had too little memory for the batch, but may have
        enough for a smaller one."""
        try:
            return self.step.run(batch)
        except Exception as error:  # whichever sample it was, it is found one by one and recorded
            if not _is_out_of_memory(error):
                return [self._run_one(each) for each in batch]
        if len(batch) == 1:
            return [SampleError(self.step.name, "the device has too little memory for it alone")]
        self.size = len(batch) // 2
        _free_device_memory()
        return None

    def _run_one(self, sample: Sample) -> Outcome:
        try:
            return self.step.run([sample])[0]
        except SampleError as error:
            return error
        except Exception as error:
            return SampleError(self.step.name, f"{type(error).__name__}: {error}")


def _missing(step: Step, sample: Sample) -> SampleError | None:
    for name in step.reads:
        value = sample.get(name)
        if isinstance(value, SampleError):
            return value
        if value is None:
            return SampleError(step.name, f"it needs {name}, which this sample does not have")
    return None


def _is_out_of_memory(error: Exception) -> bool:
    torch = sys.modules.get("torch")  # a step that does not use it never raises it
    return torch is not None and isinstance(error, torch.OutOfMemoryError)


def _free_device_memory() -> None:
    """Give back what the failed batch held, which its traceback kept alive until now."""
    gc.collect()
    sys.modules["torch"].cuda.empty_cache()
