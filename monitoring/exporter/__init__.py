"""The exporter: reads nodes, links and switches of one testbed at the moment when it is asked, and serves Prometheus.

`sampler` is what programs use, `server` what Prometheus scrapes. Each other module reads one kind of thing and gives
plain records; `samples` makes text of them.
"""
