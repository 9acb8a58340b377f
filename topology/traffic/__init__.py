"""Background traffic: flows between two nodes with a rate, a pattern in time, and a switch to start and stop them.

`schedule` says what a pattern sends when (pure), `checking` turns the testbed file's flows into planned ones (pure),
`flow` plays one schedule with iperf3 in the nodes, `daemon` holds all flows of a testbed and takes commands on a unix
socket, `client` is the side of whoever sends them.
"""
