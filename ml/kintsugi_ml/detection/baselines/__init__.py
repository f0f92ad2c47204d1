"""What the detector is compared with; each fits `protocol.Method`. All use the same samples, splits and budget.

`unlearned`: latency threshold, MAD z, exceedance, nearest neighbour. `classical`: PCA, isolation forest, matrix
profile. `boosted`: gradient boosting with and without the examples, logistic regression on the examples. `ours` is the
shipped detector's own recipe.
"""
