"""Interleaved rounds, medians, ratios: what a noisy machine does to one side, it does to the other."""

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Figure:
    """One measured median, and its ratio to the floor of the same run."""

    benchmark: str
    name: str
    value: float
    unit: str
    ratio: float

    def as_dict(self) -> dict[str, object]:
        """For the machine-readable result."""
        return asdict(self) | {"value": round(self.value, 3), "ratio": round(self.ratio, 3)}


def compared(benchmark: str, unit: str, candidates: Mapping[str, Callable[[], float]], rounds: int) -> list[Figure]:
    """Measure each candidate once a round; the first is the floor. One round before them is not counted.

    The ratio is the median of the rounds' own ratios, so a slow round counts on both sides.
    """
    for measure in candidates.values():
        measure()
    rows = [{name: measure() for name, measure in candidates.items()} for _ in range(rounds)]
    floor = next(iter(candidates))
    return [
        Figure(
            benchmark,
            name,
            statistics.median(row[name] for row in rows),
            unit,
            statistics.median(row[name] / row[floor] for row in rows),
        )
        for name in candidates
    ]


def shown(value: float) -> str:
    """Three digits, or a whole number."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def table(figures: Iterable[Figure]) -> str:
    """A Markdown table of all figures."""
    lines = ["| benchmark | what | median | ratio |", "|---|---|---:|---:|"]
    lines += [f"| {f.benchmark} | {f.name} | {shown(f.value)} {f.unit} | {f.ratio:.2f} |" for f in figures]
    return "\n".join(lines)
