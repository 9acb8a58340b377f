"""docs/verify.md as it stands there. A busy machine may be out of tolerance: then that is what it must say."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.docs.test_docs import as_root, blocks, page
from tests.system.conftest import REPOSITORY, run
from tests.system.leftovers import wait_for_none


@pytest.mark.live
def test_the_page_s_commands_work_in_their_order(tmp_path: Path) -> None:
    (text,) = blocks(page("docs/verify.md"), "bash")
    lines = text.splitlines()
    assert len(lines) == 4
    try:
        up, *checks, down = (as_root(line) for line in lines)
        (tmp_path / "checked.yaml").write_text(blocks(page("docs/verify.md"), "yaml")[0])
        up = up.replace("checked.yaml", f"{tmp_path / 'checked.yaml'} --runs {tmp_path / 'runs'}")
        assert subprocess.run(["bash", "-c", up], cwd=REPOSITORY, timeout=120, check=False).returncode == 0
        for command in checks:
            done = subprocess.run(["bash", "-c", command], cwd=REPOSITORY, capture_output=True, text=True, timeout=240,
                                  check=False)  # fmt: skip
            assert done.returncode in (0, 1) and "Traceback" not in done.stderr, done.stdout + done.stderr
            if "--json" in command:
                answer = json.loads(done.stdout)
                assert answer["ok"] is (done.returncode == 0)
                assert answer["unreachable"] == [] and answer["all_pairs"]
                assert {row["kind"] for row in answer["rows"]} == {"rate", "rtt", "loss"}
                kept = json.loads(Path("/run/cohortnet/checked/verification.json").read_text())
                assert kept["rows"] == answer["rows"]
            else:
                assert "comparisons over 6 pairs" in done.stdout
        assert subprocess.run(["bash", "-c", down], cwd=REPOSITORY, timeout=120, check=False).returncode == 0
        assert wait_for_none("checked") == []
    finally:
        run("down", "checked")
