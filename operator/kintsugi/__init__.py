"""Kintsugi: a Kubernetes operator that heals databases by itself, within the boundaries its users set."""
