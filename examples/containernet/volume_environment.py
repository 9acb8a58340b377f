#!/usr/bin/env python3
"""A web server in a container: its pages from a folder of this machine, its greeting from its environment."""

import tempfile
from pathlib import Path

from mininet.log import info, setLogLevel
from mininet.node import Controller

from topology.containernet import Containernet

SERVER = """
import http.server, os
class Pages(http.server.SimpleHTTPRequestHandler):
    def end_headers(self):
        self.send_header("X-Greeting", os.environ["GREETING"])
        super().end_headers()
http.server.HTTPServer(("", 80), Pages).serve_forever()
"""
FETCH = """
import time, urllib.request
for attempt in range(50):
    try:
        answer = urllib.request.urlopen("http://10.0.0.251/", timeout=2)
        break
    except OSError:
        time.sleep(0.1)
print(answer.headers["X-Greeting"], answer.read().decode())
"""

setLogLevel("info")
pages = Path(tempfile.mkdtemp(prefix="pages-"))
(pages / "index.html").write_text("a page of this machine")
(pages / "server.py").write_text(SERVER)
(pages / "fetch.py").write_text(FETCH)

net = Containernet(controller=Controller)
net.addController("c0")
server = net.addDocker(
    "server", ip="10.0.0.251", dimage="python:3.11-slim", volumes=[f"{pages}:/pages:ro"],
    environment={"GREETING": "hello"}, working_dir="/pages", dcmd="python3 /pages/server.py",
)  # fmt: skip
client = net.addDocker("client", ip="10.0.0.252", dimage="python:3.11-slim", volumes=[f"{pages}:/pages:rw"])
s1 = net.addSwitch("s1")
net.addLink(server, s1)
net.addLink(client, s1)
net.start()
info("*** Asking the server\n")
print("answer:", client.cmd("python3 /pages/fetch.py").strip())
print("environment:", server.cmd("echo $GREETING").strip())
client.cmd("echo written in the container > /pages/note.txt")
print("note:", (pages / "note.txt").read_text().strip())
net.stop()
for file in pages.iterdir():
    file.unlink()
pages.rmdir()
