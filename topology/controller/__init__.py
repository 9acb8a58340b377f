"""The OpenFlow controller: forwards by shortest paths in every switch of one testbed, and says over REST what
it did.

The inventory goes in, flows come out. Pure below (`graph`, `flows`, `forwarding`, `reconcile`), one locked
belief about the network (`network`), a thread a switch (`session`), and thin edges: `wire` and `connection`
touch os-ken, `rest` touches HTTP.

Tables: 0 meters and goes on to 1 (metering has it for itself), 1 forwards, 2 tells the controller about
boards that nobody listed.
"""
