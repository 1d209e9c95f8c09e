"""What an error of a remote call means for the run."""

import enum

from ray import exceptions as ray_errors

from fourmill.manifests.errors import ConfigError, FourmillError, MissingPackageError, ShardError

MAX_ATTEMPTS = 4
BACKOFF_SECONDS = 1.0  # before the second attempt; four times as long before each further one
MAX_FAILED_SAMPLES_IN_A_ROW = 100
MAX_FAILED_SHARDS_IN_A_ROW = 5

_LOST = (
    ray_errors.ObjectLostError,
    ray_errors.OwnerDiedError,
    ray_errors.ReferenceCountingAssertionError,
)
_DIED = (
    ray_errors.RayActorError,
    ray_errors.WorkerCrashedError,
    ray_errors.NodeDiedError,
    ray_errors.OutOfMemoryError,  # Ray's own, of the machine's memory
    ray_errors.LocalRayletDiedError,
)
_FATAL = (
    ConfigError,
    MissingPackageError,
    ray_errors.RuntimeEnvSetupError,
    ray_errors.ActorUnschedulableError,
    ray_errors.TaskUnschedulableError,
)


class Fault(enum.Enum):
    """What happened to a call."""

    DIED = "the process that worked on it is gone"
    LOST = "what it was to read is gone with a node"
    TRY_AGAIN = "it failed, and may succeed at another time"
    BROKEN = "it fails whenever it is tried"
    FATAL = "nothing of this kind can succeed"


def fault(error: BaseException) -> Fault:
    """What an error means."""
    cause = raised(error)
    if isinstance(error, _LOST) or isinstance(cause, _LOST):
        return Fault.LOST
    if isinstance(error, _DIED) and not getattr(error, "actor_init_failed", False):
        return Fault.DIED
    if isinstance(cause, _FATAL):
        return Fault.FATAL
    if isinstance(cause, FourmillError) and not isinstance(cause, ShardError):
        return Fault.BROKEN
    return Fault.TRY_AGAIN


def raised(error: BaseException) -> BaseException:
    """The error as the worker raised it."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, BaseException) else error


def describe(error: BaseException) -> str:
    """One line."""
    cause = raised(error)
    if isinstance(cause, FourmillError):
        return str(cause)
    lines = str(cause).strip().splitlines() or [""]
    # of a worker that could not be started Ray tells a story, and the reason in the end
    line = lines[-1] if isinstance(cause, ray_errors.RayActorError) else lines[0]
    return f"{type(cause).__name__}: {line.partition(' Some common causes include')[0]}"


def is_of_ray(error: BaseException) -> bool:
    """Whether it comes from Ray itself, and says nothing of what it ran."""
    return isinstance(raised(error), ray_errors.RayError)


def backoff(attempt: int) -> float:
    """Seconds before a unit is tried again that has failed so many times."""
    return BACKOFF_SECONDS * 4.0 ** (attempt - 1)
