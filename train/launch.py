"""A training as a job of Ray Train: the same loop, in processes that Ray places and restarts."""

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
        ConfigError: Ray Train is not installed.
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
    use_gpu = config.device != "cpu" and _has_gpus()
    ray.init(address=address, num_cpus=None if address else processes + 1)
    try:
        trainer = TorchTrainer(
            _train_here,
            train_loop_config={
                "config": settings.model_dump(mode="json"),
                "profiled_steps": profiled_steps,
            },
            torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
            scaling_config=ScalingConfig(num_workers=processes, use_gpu=use_gpu),
            run_config=RunConfig(
                name=out.name,
                storage_path=str(out.parent / ".ray"),
                failure_config=FailureConfig(max_failures=_RESTARTS),
            ),
        )
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise TrainingError(f"{out}: the training failed in Ray: {error}") from error
    finally:
        ray.shutdown()


def _train_here(options: dict[str, Any]) -> None:
    from fourmill.train.loop import train
    from fourmill.train.progress import progress_bar

    config = TrainConfig.model_validate(options["config"])
    with progress_bar("training 4M", config.steps) as report:
        train(config, report, options["profiled_steps"])


def _has_gpus() -> bool:
    import torch

    return torch.cuda.is_available()
