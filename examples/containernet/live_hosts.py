#!/usr/bin/env python3
"""Hosts and links that come and go while the network runs; containers and plain hosts side by side."""

from mininet.log import info, setLogLevel
from mininet.node import Controller

from topology.containernet import Containernet

setLogLevel("info")
net = Containernet(controller=Controller)
net.addController("c0")
h1 = net.addHost("h1")
h2 = net.addHost("h2")
d1 = net.addDocker("d1", ip="10.0.0.251", dimage="python:3.11-slim")
s1 = net.addSwitch("s1")
s2 = net.addSwitch("s2")
s3 = net.addSwitch("s3")
net.addLink(h1, s1)
net.addLink(d1, s1)
net.addLink(s1, s2)
net.addLink(h2, s2)
# A second interface in a network of its own.
net.addLink(h2, s3, params1={"ip": "192.168.7.2/24"})
net.start()
print(f"at the start {net.pingAll():g} % lost")

info("*** A container and a host come\n")
d2 = net.addDocker("d2", dimage="python:3.11-slim")
net.addLink(d2, s1, params1={"ip": "10.0.0.254/8"})
h3 = net.addHost("h3", ip="192.168.7.3/24")
net.addLink(h3, s3)
print(f"with d2 {net.ping([h1, h2, d1, d2]):g} % lost")
print(f"h3 to h2's second interface {net.ping([h3], manualdestip='192.168.7.2'):g} % lost")

info("*** A link goes, and comes back\n")
net.removeLink(node1=h1, node2=s1)
print(f"without its link {net.ping([h1], manualdestip='10.0.0.254', timeout=1):g} % lost")
net.addLink(h1, s2)
print(f"at another switch {net.ping([h1, d2]):g} % lost")

info("*** The container goes\n")
net.removeDocker("d2")
print("left:", " ".join(net))
print(f"at the end {net.ping([h1, h2, d1]):g} % lost")
net.stop()
