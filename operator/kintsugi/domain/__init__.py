"""Immutable values of the problem: what is measured, what is wrong, what could be done, what came of it.

Nothing here imports anything of ours, does I/O or reads a clock. Letters in shapes: D databases, T samples, S signals,
C components, E edges, K examples.
"""
