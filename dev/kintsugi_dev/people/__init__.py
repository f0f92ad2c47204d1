"""People at a development cluster: who they are, what they may do, and the objects they handle.

`Person` sends requests as somebody (by impersonation, thirty times faster than kubectl), `Shop` is a namespace with an
editor, approvers, an on-call engineer, a DBA and the operator, and `objects` are valid objects of the three kinds.
"""

from kintsugi_dev.people.person import Person, RefusedError
from kintsugi_dev.people.shop import Shop

__all__ = ["Person", "RefusedError", "Shop"]
