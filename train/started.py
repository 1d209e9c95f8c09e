"""How this process was started, before it is connected to others. Nothing here needs torch."""

import os


def is_first_process() -> bool:
    """Whether this is the process that speaks; known before they are connected."""
    return os.environ.get("RANK", "0") == "0"


def process_count() -> int:
    """How many processes were started together; known before they are connected."""
    return int(os.environ.get("WORLD_SIZE", "1"))
