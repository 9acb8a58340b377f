"""The emulated network: what a user writes (model), what will be built (plan), and what makes it real (engine).

Data flows one way: testbed file -> model -> plan -> engine -> inventory. Nothing here imports `mlfo`, `fl_node`,
`monitoring` or
`cohortnet`; they meet in `inventory.json` (see `topology.inventory`).
"""
