"""How often the detector alarms at stationary noise, and how soon it finds a step. Prints the table of docs/stages.md.

    .venv/bin/python tests/bench/false_alarms.py [--hours 20] [--window 1800] [--seeds 3] [--noise iid,…]

50 independent signals (20 symptoms, 20 causes, 10 context) with almost no floors, so that nothing but the statistics
holds back: harder than any real catalogue, whose symptoms are mostly exactly 0 while all is well.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from kintsugi.domain.frame import Floats, Frame
from kintsugi.domain.signals import Catalogue, Hurts, Kind, Role, Signal
from kintsugi.stages.detect import RobustDetector
from kintsugi.stages.ports import DetectorState, Observed
from kintsugi.stages.reference import reference

ROLES = (Role.SYMPTOM,) * 20 + (Role.CAUSE,) * 20 + (Role.CONTEXT,) * 10
CATALOGUE = Catalogue(
    "noise",
    tuple(
        Signal(f"s{i}", f"c{i % 13}", "", Kind.GAUGE, Hurts.UP, role, 1e-6, f"Signal {i}.", {})
        for i, role in enumerate(ROLES)
    ),
)
WIDTH = len(ROLES)
NAMES = CATALOGUE.names()
RECENT = 60
SLIDE = 30


def autoregressive(rho: float) -> Callable[[np.random.Generator, int], Floats]:
    """Noise in which each sample remembers the last one by `rho`; its variance is 1."""

    def draw(rng: np.random.Generator, samples: int) -> Floats:
        out = rng.normal(size=(samples, WIDTH))
        out[1:] *= np.sqrt(1 - rho**2)
        for row in range(1, samples):
            out[row] += rho * out[row - 1]
        return out

    return draw


def factors(rng: np.random.Generator, samples: int) -> Floats:
    """Three common causes behind all signals, as load is behind most of a database's."""
    return np.asarray(
        rng.normal(size=(samples, 3)) @ rng.normal(size=(3, WIDTH)) + 0.3 * rng.normal(size=(samples, WIDTH)),
        dtype=np.float64,
    )


NOISE: Mapping[str, Callable[[np.random.Generator, int], Floats]] = {
    "iid": lambda rng, samples: rng.normal(size=(samples, WIDTH)),
    "ar.7": autoregressive(0.7),
    "ar.95": autoregressive(0.95),
    "factors": factors,
    "student-t3": lambda rng, samples: rng.standard_t(3, size=(samples, WIDTH)),
    "lognormal.5": lambda rng, samples: rng.lognormal(0, 0.5, size=(samples, WIDTH)),
    "lognormal1": lambda rng, samples: rng.lognormal(0, 1.0, size=(samples, WIDTH)),
    "lognormal1-ar.7": lambda rng, samples: np.exp(autoregressive(0.7)(rng, samples)),
}


@dataclass
class Replay:
    """One database's samples, given to the detector one by one as the operator would."""

    values: Floats
    window: int

    def verdicts(self, last: int) -> Iterator[tuple[int, bool]]:
        """Every sample's index and whether it was flagged then."""
        times = 1e6 + np.arange(len(self.values), dtype=np.float64)
        mask = np.ones_like(self.values, dtype=np.bool_)
        detector, state = RobustDetector(), DetectorState()
        incidents: list[tuple[float, float | None]] = []
        learned = None
        for row in range(self.window + 15, last):
            if learned is None or row % SLIDE == 0 or incidents:
                rows = slice(max(0, row - self.window - 600), row + 1)
                frame = Frame(NAMES, times[rows], self.values[rows], mask[rows], 1.0)
                learned = reference(frame, incidents[-5:], float(times[row]), self.window)
            rows = slice(row - RECENT + 1, row + 1)
            recent = Frame(NAMES, times[rows], self.values[rows], mask[rows], 1.0)
            was = state.flagged
            [(_, state)] = detector.detect([Observed("x", CATALOGUE, learned, recent, state, 30)], float(times[row]))
            if state.flagged and not was:
                incidents.append((float(times[row]), None))
            if was and not state.flagged:
                incidents[-1] = (incidents[-1][0], float(times[row]))
            yield row, state.flagged


def alarms(noise: str, hours: float, window: int, seed: int) -> int:
    """How many alarms began in so many hours of noise."""
    samples = round(hours * 3600) + window + 15
    flags = [flag for _, flag in Replay(NOISE[noise](np.random.default_rng(seed), samples), window).verdicts(samples)]
    return sum(now and not before for before, now in zip([False, *flags], flags, strict=False))


def step_delay(noise: str, size: float, window: int, seed: int) -> int | None:
    """Samples from a step of `size` standard deviations in 3 symptoms to its flag; None when there is none in 30."""
    values = NOISE[noise](np.random.default_rng(1000 + seed), window + 75)
    at = window + 40
    values[at:, :3] += size * values[:at].std()
    late = (row - at + 1 for row, flag in Replay(values, window).verdicts(at + 30) if flag and row >= at)
    return next(late, None)


def cost(window: int, turns: int = 200) -> tuple[float, float]:
    """CPU milliseconds of one call for one database: as it is mostly, and when the reference is learned anew."""
    values = NOISE["factors"](np.random.default_rng(0), window + RECENT)
    frame = Frame(NAMES, np.arange(len(values), dtype=np.float64), values, np.ones_like(values, dtype=np.bool_), 1.0)
    learned, recent = frame.between(0, window), frame.between(window, len(values))
    one = Observed("x", CATALOGUE, learned, recent, DetectorState(), 30)
    detector, now = RobustDetector(), float(len(values) - 1)
    detector.detect([one], now)
    began = time.process_time()
    for _ in range(turns):
        detector.detect([one], now)
    middle = time.process_time()
    for _ in range(turns):
        RobustDetector().detect([one], now)
    return 1e3 * (middle - began) / turns, 1e3 * (time.process_time() - middle) / turns


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=20.0)
    parser.add_argument("--window", type=int, default=1800)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--noise", default=",".join(NOISE))
    options = parser.parse_args()
    write = sys.stdout.write
    write(f"reference {options.window} samples, {options.hours:g} h of 1 Hz per seed, {options.seeds} seeds\n")
    write(
        f"{'noise':16} {'alarms/h':>9} {'worst seed':>10}   delay in samples of a step in 3 symptoms (median; found)\n"
    )
    for noise in filter(None, options.noise.split(",")):
        rates = [alarms(noise, options.hours, options.window, seed) / options.hours for seed in range(options.seeds)]
        words = []
        for size in (5, 10, 20):
            delays = [step_delay(noise, size, options.window, seed) for seed in range(20)]
            found = [delay for delay in delays if delay is not None]
            words.append(f"{size} σ: {np.median(found):.0f}; {len(found)}/20" if found else f"{size} σ: -; 0/20")
        write(f"{noise:16} {np.mean(rates):9.3f} {max(rates):10.3f}   {'   '.join(words)}\n")
        sys.stdout.flush()
    usual, learning = cost(options.window)
    write(
        f"one call, {WIDTH} signals, {RECENT} recent samples: {usual:.2f} ms of CPU, {learning:.2f} ms when learning\n"
    )


if __name__ == "__main__":
    main()
