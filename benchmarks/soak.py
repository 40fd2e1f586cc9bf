"""Many rounds with faults at random: memory stays flat, nobody hangs, nobody aborts.

Three peers as real processes on loopback. Every few seconds one of the two later ones is killed and started again, or
frozen, or its connections are cut, dead for a while, or slow; the first is only cut off, and its memory is printed.
Which fault comes when is drawn by a seed; what a round meets then depends on the machine.

    python -m benchmarks.soak [--rounds 200] [--every 4] [--seed 0]

Ends with an error if a device does not end by itself, or the first's memory has grown by more than a tenth between the
second tenth of the rounds and the last. What it holds after the last round is no part of that: once, the report and its
tables load libraries of 100 MB (`benchmarks.waiting`).
"""

from __future__ import annotations

import argparse
import re
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from benchmarks.fleet import Fleet, fleet
from orthomesh.rng import stream

FAULTS = ("kill", "freeze", "cut", "dead", "slow")


def strike(f: Fleet, rng: np.random.Generator) -> str:
    """One fault, from its beginning to its end."""
    what, device = str(rng.choice(FAULTS)), int(rng.integers(1, 3))
    seconds = float(rng.uniform(0.5, 4.0))
    relays = f.between({device})
    if what == "kill":
        f.signal(device, signal.SIGKILL)
        f.until(device, "dead")
        time.sleep(seconds)
        f.start(device)
    elif what == "freeze":
        f.signal(device, signal.SIGSTOP)
        time.sleep(seconds)
        f.signal(device, signal.SIGCONT)
    elif what == "cut":
        for relay in relays:
            relay.cut()
    else:
        for relay in relays:
            relay.dead, relay.rate_bps = what == "dead", 200_000 if what == "slow" else float("inf")
        time.sleep(seconds)
        for relay in relays:
            relay.dead, relay.rate_bps = False, float("inf")
    return what


def round_of(f: Fleet) -> int:
    """The round the first device has finished last."""
    found = re.findall(r"round (\d+) of", f.said(0))
    return int(found[-1]) if found else 0


def soak(rounds: int, every_s: float, seed: int) -> None:
    """Run it and print."""
    f = fleet(
        Path(tempfile.mkdtemp(prefix="soak")), 3, f"rounds={rounds}", "methods.orthomesh.clustering=agnes", relays=True
    )
    f.pause_s, rng, struck = 0.3, stream(seed, "soak"), Counter[str]()
    memory: dict[int, float] = {}
    try:
        for k in range(3):
            f.start(k)
        f.until(0, "round 1 of", 120)
        begun = time.monotonic()
        while round_of(f) < rounds - 3 and f.started[0].exitcode is None:
            struck[strike(f, rng)] += 1
            time.sleep(every_s)
            if (mb := f.memory_mb(0)) is not None:
                over = "" if (at := round_of(f)) < rounds else ", after the last round"
                print(f"round {at}, {time.monotonic() - begun:.0f} s: {mb:.1f} MB, {dict(struck)}{over}", flush=True)
                if not over:
                    memory[at] = mb
        ended = f.ended(120)
    finally:
        f.close()
    closed = [len(re.findall("closed without", f.said(k))) for k in range(3)]
    early = [mb for at, mb in memory.items() if rounds / 10 <= at < rounds / 5]
    late = [mb for at, mb in memory.items() if at >= 0.9 * rounds]
    print(f"ended {ended}, rounds closed without somebody {closed}, faults {dict(struck)}")
    print(f"memory of the first device, MB: {np.median(early):.1f} early, {np.median(late):.1f} late")
    if any(code != 0 for code in ended.values()) or np.median(late) > 1.1 * np.median(early):
        raise SystemExit("the soak does not hold")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--every", type=float, default=4.0, help="seconds between two faults")
    parser.add_argument("--seed", type=int, default=0)
    told = parser.parse_args()
    soak(told.rounds, told.every, told.seed)
