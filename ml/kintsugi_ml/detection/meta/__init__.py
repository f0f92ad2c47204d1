"""Networks that are trained to adapt from a few examples; the only part of the package that imports torch.

`inner` differentiates through gradient steps (the only place that knows `higher`), `nets` are small networks without
classes, `tasks` are episodes as tensors. `fast` is MAML with fast weights over a database's own signals, `compared` a
relation network over the same input, `outer` trains both. `encoder` pools first: ProtoNet, ANIL, and pre-training with
fine-tuning. `reconstruct` is the LSTM autoencoder. `methods` are all of them, for the harness; install the extra
`train` for it. What ships is scored with numpy alone.
"""
