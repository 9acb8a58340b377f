"""What a testbed does now, in a terminal: `cohortnet top`.

`services` asks the MLFO and the controller, the exporter's `Sampler` reads the nodes, `frame` puts both together as
plain values, `view` draws them with Rich, `live` keeps the picture fresh. Needs neither Prometheus nor monitoring in
the testbed.
"""
