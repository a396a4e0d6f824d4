"""What a server's process takes, and that it keeps what it will need again."""

import json
import platform
import subprocess
import sys

import numpy as np
import pytest

from splitc.server.memory import memory_bytes

_FAULTS = """
import json, resource
import numpy as np
from splitc.server.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        held = [np.ones(size, np.uint8) for size in (1_500_000, 3_000_000, 1_500_000)]
        del held
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
by_default = faults()
keep_freed_memory()
faults()
print(json.dumps([by_default, faults()]))
"""


def test_memory_is_that_of_this_process() -> None:
    before = memory_bytes()
    kept = np.ones(20_000_000 // 8)
    assert memory_bytes() - before > 0.9 * kept.nbytes


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has such settings")
def test_memory_that_was_freed_is_used_again() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FAULTS], capture_output=True, text=True, check=True, timeout=60
    )
    by_default, kept = json.loads(done.stdout)
    assert kept < by_default / 20
