"""A training as a job of Ray Train: the same loop, in processes that Ray places and restarts."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fourmill.manifests.errors import ConfigError, TrainingError
from fourmill.train.config import TrainConfig

_RESTARTS = 3  # of the whole, where a process or its node is lost: it goes on from its checkpoint


def train_with_ray(
    config: TrainConfig, processes: int, address: str | None = None, profiled_steps: int = 0
) -> None:
    """Train in `processes` processes of a Ray cluster, on a GPU each where there are GPUs.

    Paths of the configuration are made absolute: on a cluster they have to be on what all of its
    nodes share.

    Args:
        address: of a running cluster; by default one of this machine, for the time of the training.
        profiled_steps: see `loop.train`.

    Raises:
        ConfigError: Ray Train is not installed, or nobody answers at the address.
        TrainingError: the training failed, on every try.
    """
    try:
        import ray
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer
    except ImportError as error:
        raise ConfigError(f"--launcher ray needs Ray Train: {error}") from error
    out, tokenizers = config.out.resolve(), config.tokenizers.resolve()
    root = config.root if "://" in config.root else str(Path(config.root).resolve())
    settings = config.model_copy(update={"out": out, "tokenizers": tokenizers, "root": root})
    with _connected(address, processes):
        there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        use_gpu = config.device != "cpu" and there.get("GPU", 0) >= processes
        trainer = TorchTrainer(
            _train_here,
            train_loop_config={
                "config": settings.model_dump(mode="json"), "profiled_steps": profiled_steps,
            },
            torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
            scaling_config=ScalingConfig(num_workers=processes, use_gpu=use_gpu),
            run_config=RunConfig(
                name=out.name,
                storage_path=str(out.parent / ".ray"),
                failure_config=FailureConfig(max_failures=_RESTARTS),
            ),
        )  # fmt: skip
        try:
            trainer.fit()
        except ray.train.TrainingFailedError as error:
            raise TrainingError(f"{out}: the training failed in Ray: {error}") from error


@contextmanager
def _connected(address: str | None, processes: int) -> Iterator[None]:
    """Ray for the time of a training, unless this process uses it already.

    Without an address no other cluster is joined, whatever runs on this machine.

    Raises:
        ConfigError: nobody answers at the address.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        if address is None:
            ray.init(address="local", num_cpus=processes + 1, include_dashboard=False)
        else:  # with this very code
            package = Path(os.path.abspath(__file__)).parents[1]
            ray.init(address=address, runtime_env={"py_modules": [str(package)]})
    except ConnectionError as error:
        raise ConfigError(f"no Ray cluster answers at {address}: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _train_here(options: dict[str, Any]) -> None:
    from fourmill.train.loop import train
    from fourmill.train.progress import progress_bar

    config = TrainConfig.model_validate(options["config"])
    with progress_bar("training 4M", config.steps) as report:
        train(config, report, options["profiled_steps"])
