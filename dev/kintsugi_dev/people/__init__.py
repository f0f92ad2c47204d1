"""People at a development cluster: who they are, what they may do, and the objects they handle.

`Person` sends requests as somebody (by impersonation, thirty times faster than kubectl), `Shop` is a namespace with an
editor, approvers, an on-call engineer, a DBA and the operator, `Handle` one object there and all that somebody can try
on it, and `objects` are valid objects of the three kinds.
"""

from kintsugi_dev.people.handle import Handle
from kintsugi_dev.people.person import Person, RefusedError
from kintsugi_dev.people.shop import Shop

__all__ = ["Handle", "Person", "RefusedError", "Shop"]
