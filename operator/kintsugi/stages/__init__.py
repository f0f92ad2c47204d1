"""The stages of both loops as pure functions: detect, predict, recover, guard, verify, lifecycle.

Time comes in as an argument; nothing here does I/O. `ports.py` has the protocols that the learned models will fill.
"""
