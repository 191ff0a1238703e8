"""Measures how many windows per second each installed back end classifies on the CPU.

    python benchmarks/backends.py [--model eurosat-rgb-dense] [--rounds 5]

The rounds of the back ends alternate, because the speed of a machine varies. Medians are printed, for each back end's
default precision and for float32.
"""

from __future__ import annotations

import argparse
from statistics import median

from geocfl.models.backends import load_backend
from geocfl.models.backends.base import measure_rate
from geocfl.models.bundle import DEFAULT_MODEL, Bundle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    model = Bundle.load(arguments.model)
    pairs = [(name, precision) for precision in ("auto", "float32") for name in ("openvino", "torch")]
    backends = {pair: load_backend(model, pair[0], "cpu", pair[1]) for pair in pairs}
    rates: dict[tuple[str, str], list[float]] = {pair: [] for pair in pairs}
    for _ in range(arguments.rounds):
        for pair, backend in backends.items():
            rates[pair].append(measure_rate(backend, model))
    for (name, precision), values in rates.items():
        print(f"{name:9} {precision:8} {backends[name, precision].precision:9} {median(values):7,.0f} windows/s")
    for precision in ("auto", "float32"):
        ratio = median(rates["openvino", precision]) / median(rates["torch", precision])
        print(f"OpenVINO is {ratio:.1f} times as fast as torch at precision {precision}")


if __name__ == "__main__":
    main()
