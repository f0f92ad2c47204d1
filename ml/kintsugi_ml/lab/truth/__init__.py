"""Ground truth: what really moved first, sampled at 8 Hz beside Prometheus, which the models never see.

`sampler` records raw numbers from the servers and the kernel, `measures` makes each component's measures of them, and
`onset` says when a component left its normal band.
"""
