#!/usr/bin/env python3
"""Processor and memory limits of a container, set at its start and changed while it runs."""

from mininet.log import info, setLogLevel
from mininet.node import Controller

from topology.containernet import Containernet

BURN = (
    "python3 -c 'from time import *; end = time() + 1.5; any(iter(lambda: time() > end, True)); "
    "print(round(process_time() / 1.5, 2))'"
)
FILL = "python3 -c 'print(len(bytearray(100 * 2**20)))' 2>&1 | tail -n 1"

setLogLevel("info")
net = Containernet(controller=Controller)
net.addController("c0")
d1 = net.addDocker(
    "d1", ip="10.0.0.251", dimage="python:3.11-slim", cpu_period=50000, cpu_quota=25000, mem_limit="64m"
)
s1 = net.addSwitch("s1")
net.addLink(d1, s1)
net.start()
info("*** Limits as declared: half a core, 64 MB\n")
print("cpu at 0.5:", d1.cmd(BURN).strip())
print("100 MB at 64m:", d1.cmd(FILL).strip() or "killed")
info("*** Limits changed: a fifth of a core, 256 MB\n")
d1.updateCpuLimit(cpu_quota=20000, cpu_period=100000)
d1.updateMemoryLimit(mem_limit=256 * 2**20)
print("cpu at 0.2:", d1.cmd(BURN).strip())
print("100 MB at 256m:", d1.cmd(FILL).strip())
net.stop()
