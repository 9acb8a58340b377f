"""An FL process of the contract (`--config FILE.json`, events as JSON lines) that does what its config's
`behave` says."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def main() -> int:
    config = json.loads(Path(sys.argv[sys.argv.index("--config") + 1]).read_text())
    behave = config["config"].get("behave", "run")
    events = open(config["events"], "a", buffering=1)  # noqa: SIM115

    def say(kind: str, **fields: object) -> None:
        events.write(json.dumps({"seq": 99, "kind": kind, "run": config["run_id"], **fields}) + "\n")

    print(f"fake process {os.getpid()} behaves: {behave}", flush=True)
    if behave == "crash":
        raise RuntimeError("the fake has crashed")
    if behave == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if behave == "children":
        child = subprocess.Popen(["sleep", "600"])
        Path(config["events"]).with_name("grandchild").write_text(str(child.pid))
    if behave == "orphans":
        subprocess.run(["sh", "-c", "setsid sleep 0.3 &"], check=True)
    if "clients" in config:
        say("server.listening", address=f"0.0.0.0:{config['port']}")
    say("run.started", application=config["application"])
    if behave == "fail":
        say("run.failed", error="client fc.9 is missing", clients=["fc.9"])
        return 3
    if behave == "finishing":

        def finish(*_: object) -> None:
            say("run.finished", rounds=1, stopped="goal")
            sys.exit(0)

        signal.signal(signal.SIGUSR1, finish)
        say("run.started", application="again, now that the handler is there")
    if behave in ("wait", "finishing", "stubborn", "children"):
        time.sleep(600)
    for number in range(int(config["config"].get("rounds", 3))):
        time.sleep(float(config["config"].get("pause", 0.0)))
        say("round.metrics", round=number + 1, metrics={"accuracy": 0.5 + number / 10})
    events.write("this is no JSON\n")
    say("run.finished", rounds=3)
    return 0


if __name__ == "__main__":
    sys.exit(main())
