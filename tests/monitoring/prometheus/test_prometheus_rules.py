"""Every alert fires when it should and only then, said by promtool over `rules_test.yml`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from monitoring.prometheus import config
from tests.monitoring.prometheus.prom_lab import promtool

CASES = Path(__file__).with_name("rules_test.yml")
SHORT = Path(__file__).with_name("rules_short_test.yml")


@pytest.mark.parametrize(("period_s", "cases"), [(5.0, CASES), (1.0, SHORT)])
def test_promtool_checks_the_rules_and_every_alert_in_them(tmp_path: Path, period_s: float, cases: Path) -> None:
    (tmp_path / "rules.yml").write_text(config.rules_yml(period_s))
    shutil.copy(cases, tmp_path / "rules_test.yml")
    assert "9 rules found" in promtool("check", "rules", str(tmp_path / "rules.yml"))
    assert "SUCCESS" in promtool("test", "rules", str(tmp_path / "rules_test.yml"))


def test_each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    rules = yaml.safe_load(config.rules_yml(5.0))
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"] if "alert" in rule}
    assert len(alerts) == 6
    fires: set[str] = set()
    for case in yaml.safe_load(CASES.read_text())["tests"]:
        for check in case.get("alert_rule_test", ()):
            if check.get("exp_alerts"):
                fires.add(check["alertname"])
    # Not firing is part of every case: promtool takes exactly the alerts that are named.
    assert fires == alerts
