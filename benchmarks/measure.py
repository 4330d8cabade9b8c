"""Interleaved rounds, medians, ratios: what a noisy machine does to one side, it does to the other."""

import os
import random
import resource
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass

PER_SECOND = "requests/s"
"""The one unit of which more is better."""
LEAST_NOISE = 0.03


@dataclass(frozen=True)
class Figure:
    """A median, its ratio to the floor of the same run, and the noise: the part by which the rounds' ratios differ."""

    benchmark: str
    name: str
    value: float
    unit: str
    ratio: float
    noise: float

    def as_dict(self) -> dict[str, object]:
        """For the machine-readable result."""
        return asdict(self) | {name: round(getattr(self, name), 3) for name in ("value", "ratio", "noise")}


def compared(benchmark: str, unit: str, candidates: Mapping[str, Callable[[], float]], rounds: int) -> list[Figure]:
    """Measure each candidate once a round; the first is the floor. One round before them is not counted.

    Each round has another order, because a candidate leaves its mark on the processor's caches.

    The ratio is the median of the rounds' own ratios, so a slow round counts on both sides.
    """
    names = list(candidates)
    os.sync()  # else what an earlier benchmark has left to write is measured too
    for measure in candidates.values():
        measure()
    rows = [{name: candidates[name]() for name in random.sample(names, len(names))} for _ in range(rounds)]
    floor = names[0]
    figures = []
    for name in names:
        ratios = [row[name] / row[floor] for row in rows]
        ratio, quartiles = statistics.median(ratios), statistics.quantiles(ratios, n=4, method="inclusive")
        noise = max(LEAST_NOISE, (quartiles[2] - quartiles[0]) / ratio)
        value = statistics.median(row[name] for row in rows)
        figures.append(Figure(benchmark, name, value, unit, ratio, noise))
    return figures


def worse(stored: Iterable[Figure], measured: Iterable[Figure]) -> list[str]:
    """Return a line for each ratio that is worse than the stored one by more than the noise of both."""
    before, lines = {(figure.benchmark, figure.name): figure for figure in stored}, []
    for now in measured:
        if old := before.get((now.benchmark, now.name)):
            part = old.ratio / now.ratio - 1 if now.unit == PER_SECOND else now.ratio / old.ratio - 1
            if part > old.noise + now.noise:
                reason = f"{now.ratio:.2f} times its floor, and {old.ratio:.2f} when it was stored"
                lines.append(f"{now.benchmark}, {now.name}: {reason} (noise {old.noise + now.noise:.0%})")
    return lines


def cpu_seconds(call: Callable[[], object]) -> float:
    """Return the processor time, user and system, of the processes that `call` starts and waits for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    call()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def wall_seconds(call: Callable[[], object]) -> float:
    """Return the seconds that `call` takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def shown(value: float) -> str:
    """Three digits, or a whole number."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def table(figures: Iterable[Figure]) -> str:
    """A Markdown table of all figures."""
    lines = ["| benchmark | what | median | ratio | noise |", "|---|---|---:|---:|---:|"]
    lines += [
        f"| {f.benchmark} | {f.name} | {shown(f.value)} {f.unit} | {f.ratio:.2f} | {f.noise:.0%} |" for f in figures
    ]
    return "\n".join(lines)
