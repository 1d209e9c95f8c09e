"""What workers keep of their memory."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import numpy as np
from fourmill.pipeline.memory import keep_memory

def pages_mapped_in():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        block = [np.ones((384, 512, 3), np.uint8) for _ in range(32)]
        del block
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

given_back = pages_mapped_in()
keep_memory()
pages_mapped_in()
print(given_back, pages_mapped_in())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")
def test_the_memory_of_a_block_of_pictures_serves_for_the_next_one():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True)
    given_back, kept = map(int, done.stdout.split())
    assert kept < given_back / 10
