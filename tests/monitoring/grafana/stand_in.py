"""What stands in for Grafana in a test image: looks at its environment and its mounts as Grafana does, ends with status
3 and a reason where anything is wrong, else listens where it was told and says what it found."""

import http.server
import json
import os
import pathlib
import re
import sys


def stop(reason):
    print("stand-in:", reason, flush=True)
    sys.exit(3)


def setting(name):
    return os.environ.get(name) or stop(f"{name} is not set")


def main():
    if os.environ.get("STAND_IN_FAILS"):
        stop("told to fail")
    if os.getuid() != 472:
        stop(f"runs as {os.getuid()}")
    provisioning = pathlib.Path(setting("GF_PATHS_PROVISIONING"))
    source = (provisioning / "datasources/cohortnet.yaml").read_text()
    provider = (provisioning / "dashboards/cohortnet.yaml").read_text()
    folder = pathlib.Path(re.search(r"^\s*path: (\S+)$", provider, re.MULTILINE)[1])
    dashboards = {path.stem: json.loads(path.read_text())["uid"] for path in folder.glob("*.json")}
    home = pathlib.Path(setting("GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"))
    if not dashboards or home.stem not in dashboards or not home.exists():
        stop(f"no dashboards in {folder}, or no {home}")
    for place in (provisioning, folder):
        try:
            (place / "written").touch()
        except OSError:
            continue
        stop(f"{place} can be written to")
    found = {
        "dashboards": dashboards,
        "url": re.search(r"^\s*url: (\S+)$", source, re.MULTILINE)[1],
        "interval": re.search(r"^\s*timeInterval: (\S+)$", source, re.MULTILINE)[1],
        "environment": {key: value for key, value in os.environ.items() if key.startswith("GF_")},
    }

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps({"database": "ok"} if self.path == "/api/health" else found).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    address = (setting("GF_SERVER_HTTP_ADDR"), int(setting("GF_SERVER_HTTP_PORT")))
    http.server.HTTPServer(address, Handler).serve_forever()


main()
