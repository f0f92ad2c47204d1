"""A small stand for end-to-end tests: servers with lanes to inject faults into, the operator as a process, cases."""

from kintsugi_dev.stand.case import Case
from kintsugi_dev.stand.operator_process import Operator
from kintsugi_dev.stand.stand import ACTIONS, DATABASES, POLICIES, Json, Lane, Stand, stand

__all__ = ["ACTIONS", "DATABASES", "POLICIES", "Case", "Json", "Lane", "Operator", "Stand", "stand"]
