"""What running something does to a process: it is run in a child, whose end tells.

Ray only says that a worker is gone. The child's exit status says whether it was a segmentation
fault, a call of `exit`, or the kernel that ran out of memory.
"""

import os
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

_READY = b"ready\n"  # what the child says before it does anything dangerous
_HINTS = {signal.SIGKILL: "most likely because the machine ran out of memory"}
_FRAME = re.compile(r'File "([^"]+)", line (\d+) in (\S+)')


def cause_of_death(function: Callable[..., object], *arguments: Any) -> str:
    """How a process ends that calls the function; empty if it lives, whatever it raises.

    Raises:
        RuntimeError: the process did not come so far.
    """
    from ray import cloudpickle  # not for the child, which is started again and again

    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-m", "fourmill.pipeline.autopsy"],
        input=cloudpickle.dumps((function, arguments)),  # type: ignore[no-untyped-call]
        capture_output=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=False,
    )
    trace = done.stderr.decode(errors="replace")
    if not done.stdout.startswith(_READY):
        raise RuntimeError(f"a child process could not be started for an autopsy: {trace[-500:]}")
    return _describe(done.returncode) + _place(trace) if done.returncode else ""


def _describe(code: int) -> str:
    if code > 0:
        return f"the process exits with code {code}"
    number = signal.Signals(-code)
    hint = _HINTS.get(number)
    return f"the process is killed by {number.name}" + (f", {hint}" if hint else "")


def _place(trace: str) -> str:
    """The innermost Python line that the fault handler saw, where it saw one."""
    found = _FRAME.search(trace.partition("(most recent call first)")[2])
    return f" in {found[3]} ({os.path.basename(found[1])}:{found[2]})" if found else ""


def main() -> None:
    """Be the child."""
    function, arguments = pickle.loads(sys.stdin.buffer.read())  # from the parent alone
    os.write(sys.stdout.fileno(), _READY)
    with suppress(Exception):  # an error is no death; it is recorded where the sample is labelled
        function(*arguments)


if __name__ == "__main__":
    main()
