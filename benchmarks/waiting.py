"""What a peer holds in memory while it waits: for others to appear, for one that is frozen in a round, and at its end.

Two peers on loopback as a user starts them, from their command. Resident memory (RSS) counts pages of libraries that
others share in full, proportional (PSS) in part. Linux only.

    python -m benchmarks.waiting

Ends with an error if a peer that waits for others to appear holds 400 MB or more.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.fleet import fleet

TARGET_MB = 400.0
PATIENCE = {"meet_s": 300.0, "first_s": 60.0, "least_s": 20.0, "linger_s": 0.5}


class Held(NamedTuple):
    """Memory of one process, MB."""

    rss: float
    pss: float


def held(pid: int) -> Held | None:
    """What a process holds now; none where it has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return None
    found = dict(re.findall(r"^(\w+): +(\d+) kB", text, re.MULTILINE))
    return Held(int(found["Rss"]) * 1.024e-3, int(found["Pss"]) * 1.024e-3) if "Rss" in found else None


def children(pid: int) -> list[int]:
    """Processes that a process has started itself."""
    return [int(k) for k in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def waiting() -> bool:
    """Measure and print; whether the target holds."""
    f = fleet(Path(tempfile.mkdtemp(prefix="waiting")), 2, patience=PATIENCE)
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    started: list[subprocess.Popen[bytes]] = []

    def start(k: int) -> int:
        with f.log(k).open("wb") as log:
            command = [sys.executable, "-m", "orthomesh", "peer", str(f.files[k])]
            started.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment))
        return started[-1].pid

    try:
        pid, most = start(0), 0.0
        while not (f.files[0].parent / "run" / "life").is_file():  # then it has opened its connections
            both = [held(k) for k in (pid, *children(pid))]
            most = max(most, sum(one.rss for one in both if one))
            time.sleep(0.05)
        time.sleep(3.0)
        met = held(pid)
        other = start(1)
        while "round 1 of" not in f.said(0):
            time.sleep(0.05)
        os.kill(other, signal.SIGSTOP)
        time.sleep(5.0)
        rounds, frozen = re.findall(r"round (\d+) of", f.said(0))[-1], held(pid)
        os.kill(other, signal.SIGCONT)
        last, top = frozen, 0.0
        while (now := held(pid)) is not None:
            last, top = now, max(top, now.rss)
            time.sleep(0.02)
    finally:
        for one in started:
            one.kill()
            one.wait()
    print(f"looks at model and data in a process of its own: RSS of both {most:.0f} MB at most")
    for what, mb in (("waits for others to appear", met), (f"waits in a round after {rounds}", frozen), ("ends", last)):
        assert mb is not None
        print(f"{what}: RSS {mb.rss:.0f} MB, PSS {mb.pss:.0f} MB")
    print(f"at most from there to its end: RSS {top:.0f} MB")
    return met is not None and met.rss < TARGET_MB


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    if not waiting():
        raise SystemExit(f"a peer that waits holds {TARGET_MB:.0f} MB or more")
