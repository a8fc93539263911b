"""What freed memory is returned to the system, in processes of their own."""

import platform
import subprocess
import sys

import pytest

# As a large request, and then a smaller one whose memory lies before something that stays.
PROGRAM = """
import sys
import numpy as np
import psutil
from jdfd_keras.io.memory import return_large_blocks

if sys.argv[1] == "returned":
    assert return_large_blocks()
np.ones(30 * 2**20, np.uint8)
before = psutil.Process().memory_info().rss
kept = []
for _ in range(5):
    block = np.ones(16 * 2**20, np.uint8)
    kept.append(np.ones(2**16, np.uint8))
    later = np.ones(16 * 2**20 + 2**12 * len(kept), np.uint8)
    kept.append(np.ones(2**16, np.uint8))
    del block, later
print((psutil.Process().memory_info().rss - before) / 2**20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_large_blocks_are_returned_to_the_system():
    grown_mb = {
        name: float(subprocess.check_output([sys.executable, "-c", PROGRAM, name]))
        for name in ("kept", "returned")
    }
    assert grown_mb["returned"] < 8 < grown_mb["kept"]
