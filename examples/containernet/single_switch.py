#!/usr/bin/env python3
"""Two containers at one switch: do they reach one another, how fast, and a prompt to look around."""

from mininet.cli import CLI
from mininet.link import TCLink
from mininet.log import info, setLogLevel
from mininet.node import Controller

from topology.containernet import Containernet

setLogLevel("info")

net = Containernet(controller=Controller)
info("*** Adding controller\n")
net.addController("c0")
info("*** Adding containers\n")
d1 = net.addDocker("d1", ip="10.0.0.251", dimage="python:3.11-slim")
d2 = net.addDocker("d2", ip="10.0.0.252", dimage="python:3.11-slim")
info("*** Adding switch\n")
s1 = net.addSwitch("s1")
info("*** Creating links\n")
net.addLink(d1, s1, cls=TCLink, bw=20)
net.addLink(s1, d2)
info("*** Starting network\n")
net.start()
info("*** Testing connectivity\n")
loss = net.ping([d1, d2])
print(f"loss {loss:g} %")
print("rates", net.iperf([d1, d2], seconds=3))
info("*** Running CLI\n")
CLI(net)
info("*** Stopping network\n")
net.stop()
