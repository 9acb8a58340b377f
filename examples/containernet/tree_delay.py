#!/usr/bin/env python3
"""Mininet's own tree of switches, each link with a delay, a loss and a bandwidth (needs a kernel with netem)."""

from functools import partial

from mininet.link import TCLink
from mininet.log import setLogLevel
from mininet.topolib import TreeTopo

from topology.containernet import Mininet

setLogLevel("info")
net = Mininet(topo=TreeTopo(depth=2, fanout=2), link=partial(TCLink, delay="5ms", loss=1, bw=50))
net.start()
h1, h4 = net.get("h1", "h4")
net.pingAll()
# Four links there and four back: 40 ms, and 1 - 0.99^8 = 7.7 % of the packets lost.
print(h1.cmd("ping -q -i 0.02 -c 200", h4.IP()))
print("rates", net.iperf([h1, h4], l4Type="UDP", udpBw="20M", seconds=3))
net.stop()
