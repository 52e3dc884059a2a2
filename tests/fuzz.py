"""Random networks until the time is up: `make fuzz SECONDS=600`, or one of them: `--seed 17`.

Prints every failure with the smallest network that shows it. Exits with 1 where there was any.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence

import torch
from fuzz_check import ATEN, TRITON, Verdict, Way, check
from fuzz_draw import draw_recipe
from fuzz_recipes import Recipe
from fuzz_shrink import shrink

SMALL = {"most_steps": 6, "most_elements": 120}
"""For the interpreter."""


def recipe_of(seed: int, small: bool) -> Recipe:
    return draw_recipe(seed, **SMALL) if small else draw_recipe(seed)


def report(seed: int, ways: Sequence[Way], small: bool, seconds: float = 60.0) -> tuple[Verdict, str]:
    """The verdict on that seed's network; where it fails, a text with the smallest network that does."""
    recipe = recipe_of(seed, small)
    verdict = check(recipe, seed, ways)
    first = verdict.failure
    if first is None:
        return verdict, ""
    ways = [way for way in ways if str(way) == first.way]
    least = shrink(recipe, lambda smaller: first.like(check(smaller, seed, ways).failure), seconds)
    last = check(least, seed, ways).failure
    again = f"make fuzz SEED={seed} BACKEND={'triton' if small else 'aten'}"
    return verdict, f"seed {seed}: {last or first}\n{least}\n{least.build().to_graph()}\nagain: {again}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--first", type=int, default=None, help="the first seed; by default the time of day")
    parser.add_argument("--seed", type=int, default=None, help="one network alone")
    parser.add_argument("--backend", choices=("aten", "triton"), default="aten")
    options = parser.parse_args()
    torch.set_num_threads(1)
    small = options.backend == "triton"
    ways = TRITON if small else ATEN
    start = time.monotonic()
    seed = options.first if options.first is not None else int(time.time())
    if options.seed is not None:
        seed = options.seed
        print(recipe_of(seed, small))
    counts: Counter[str] = Counter()
    while True:
        verdict, text = report(seed, ways, small)
        counts["failed" if verdict.failure else "agreed" if verdict.decided else "undecided"] += 1
        if text:
            print(text, end="\n\n", flush=True)
        seed += 1
        if options.seed is not None or time.monotonic() - start > options.seconds:
            break
    told = ", ".join(f"{count} {what}" for what, count in counts.items())
    print(f"{sum(counts.values())} networks, {', '.join(map(str, ways))}: {told}; the next seed is {seed}")
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
