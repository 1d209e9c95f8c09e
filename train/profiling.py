"""A record of where the time of some steps goes, for chrome://tracing or ui.perfetto.dev."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import profiler as torch_profiler

_WARM_UP = 3  # steps that are not recorded: memory is found, kernels are compiled


@contextmanager
def profiler(out: Path, steps: int) -> Iterator[Callable[[], None]]:
    """Record `steps` steps into `out/profile.json`; what it gives is called after each step."""
    if not steps:
        yield lambda: None
        return
    activities = [torch_profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch_profiler.ProfilerActivity.CUDA)

    def write(recorded: torch_profiler.profile) -> None:
        recorded.export_chrome_trace(str(out / "profile.json"))

    schedule = torch_profiler.schedule(wait=0, warmup=_WARM_UP, active=steps, repeat=1)
    with torch_profiler.profile(
        activities=activities, schedule=schedule, on_trace_ready=write, profile_memory=True
    ) as recorder:
        yield recorder.step
