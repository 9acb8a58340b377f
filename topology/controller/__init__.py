"""The OpenFlow controller: forwards by shortest paths in every switch of one testbed, and says over REST what
it did.

The inventory and meters go in, flows come out. Pure below (`graph`, `flows`, `forwarding`, `meters`, `placement`,
`reconcile`), one locked belief about the network (`network`), a thread a switch (`session`), and thin edges:
`wire` and `connection` touch os-ken, `rest` touches HTTP.

Tables: 0 to 9 hold meters, one table a kind and direction, each going on to the next; 10 forwards; 11 tells the
controller about boards that nobody listed. What is limited is kept in `meterbook`, where it is limited is worked
out by `placement`, `metering` carries changes out and answers for them.
"""
