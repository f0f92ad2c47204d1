"""The development cluster: a real Kubernetes API server in seconds, several at once, nothing left behind.

`Cluster` is what tests and the demo use; `python -m kintsugi_dev.cluster up|down` is the same for a person. No product
code lives here, and nothing here is imported by it.
"""

from kintsugi_dev.cluster.cluster import Cluster, chosen_runtime
from kintsugi_dev.cluster.errors import ClusterError, CommandError, MissingToolError, NotReadyError

__all__ = ["Cluster", "ClusterError", "CommandError", "MissingToolError", "NotReadyError", "chosen_runtime"]
