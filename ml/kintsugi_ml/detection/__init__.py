"""Detection that learns a new database from a few examples, on any metrics.

From the bottom up: `normal`, `tokens`, `relation`, `pooling`, `features` turn metrics into rows of numbers that mean
the same for every system; `trees` and `calibrate` score them; `own_space` and `stack` compare with a system's own
examples; `detector` is the API of all that; `table` and `cli` read anybody's files. `protocol`, `metrics`, `baselines`,
`training`, `dbsherlock` and `evaluate` train it and compare it with others; only they need scikit-learn and scipy.
Of ours, this package imports `kintsugi.domain` alone.
"""
