"""A script of Mininet's world, with delay and loss, as its users start it."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.kernel.kernel_package import ROOT
from tests.system.leftovers import wait_for_none

pytestmark = pytest.mark.live


def test_a_mininet_tree_with_delay_and_loss() -> None:
    name = "t-kernel-tree"
    script = ROOT / "examples" / "containernet" / "tree_delay.py"
    done = subprocess.run([sys.executable, str(script)], env={**os.environ, "COHORTNET_TESTBED": name},
                          capture_output=True, text=True, timeout=300, check=False)  # fmt: skip
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    found = re.search(r"([\d.]+)% packet loss.*?= ([\d.]+)/", done.stdout, re.DOTALL)
    assert found is not None
    # Four links of 5 ms there and four back; 1 - 0.99^8 = 7.7 % of 200 packets, within four deviations.
    assert 0.2 <= float(found.group(1)) <= 15.3
    assert 40 <= float(found.group(2)) <= 43
    assert wait_for_none(name) == []
