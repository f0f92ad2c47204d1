"""What prediction says: where the trouble started and where it goes next."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Impact:
    """One component that is degraded already (`eta` 0) or will be in about `eta` seconds with `probability` (0..1).

    `path` are the components the trouble travels along, root first, this component last.
    """

    component: str
    probability: float
    eta: float
    path: tuple[str, ...]

    @property
    def degraded(self) -> bool:
        """Whether it is degraded already."""
        return self.eta <= 0


@dataclass(frozen=True, slots=True)
class Forecast:
    """The root component and every component at risk, most certain first; `sentence` says it in words."""

    root: str | None
    impacts: tuple[Impact, ...]
    sentence: str

    def ahead(self) -> tuple[Impact, ...]:
        """The impacts that have not happened yet, soonest first."""
        return tuple(sorted((i for i in self.impacts if not i.degraded), key=lambda i: (i.eta, -i.probability)))


NO_FORECAST = Forecast(None, (), "nothing at risk")
