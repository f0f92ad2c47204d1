"""What the clients of a lab world do: four applications that differ in kind, and the one back office they all have.

`base` is the contract, `tpcc`, `keyvalue`, `reporting` and `ingest` the applications, `backoffice` the side service,
`patterns` how the load changes over a run, `clients` sends the requests (a process of its own, see `process`).
"""

from __future__ import annotations

from typing import Final

from kintsugi_ml.lab.workloads.base import Workload
from kintsugi_ml.lab.workloads.ingest import Ingest
from kintsugi_ml.lab.workloads.keyvalue import KeyValue
from kintsugi_ml.lab.workloads.reporting import Reporting
from kintsugi_ml.lab.workloads.tpcc import OrderEntry

WORKLOADS: Final[dict[str, type[Workload]]] = {kind.name: kind for kind in (OrderEntry, KeyValue, Reporting, Ingest)}
