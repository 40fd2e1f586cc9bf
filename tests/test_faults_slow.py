"""The matrix of faults on real processes: python -m pytest -m slow tests/test_faults_slow.py, minutes."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from benchmarks.fleet import PLACES, Fleet, fleet

from orthomesh.checkpoint import load_devices

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Fleet]]:
    made: list[Fleet] = []

    def start(rounds: int, relays: bool = True, patience: dict[str, float] | None = None) -> Fleet:
        made.append(fleet(tmp_path / "fleet", 3, f"rounds={rounds}", relays=relays, patience=patience))
        made[-1].pause_s = 1.0
        return made[-1]

    yield start
    for one in made:
        one.close()


def ends_well(f: Fleet, rounds: int, wait_s: float = 150.0) -> None:
    """All end by themselves without a fault, with a state of the last round and the experts of all."""
    assert f.ended(wait_s) == dict.fromkeys(range(3), 0), "\n".join(f.said(k)[-3000:] for k in range(3))
    for k, file in enumerate(f.files):
        states, done = load_devices(file.parent / "run" / "state" / "orthomesh.safetensors")
        assert (list(states), done) == ([k], rounds)
        held = {name.split("/")[1] for name in states[k].bank}
        assert held == {str(j) for j in range(3)} - {str(k)}, f"device {k} holds {held}"


def test_killed_at_every_place_in_turn(make: Callable[..., Fleet]) -> None:
    f = make(100)
    f.pause_s = 2.0  # a start takes as long as several rounds of the others
    f.start(0)
    f.start(2)
    kept = started = 0
    early = ("phase 1", "phase 1 sent")  # only while masks are agreed on a round has two phases
    for place in ("meeting", *early, *(p for p in PLACES[1:-2] if p not in early)):
        f.start(1, at=place if place == "meeting" else f"+0/{place}" if place in early else f"+2/{place}")
        f.until(1, "dead", 200)
        state = f.files[1].parent / "run" / "state" / "orthomesh.safetensors"
        done = load_devices(state)[1] if state.exists() else 0
        assert done >= kept, f"killed at {place}, it has {done} rounds where it had {kept}"
        started, kept = started + (done > kept), done
    assert started == 6, f"{started} of 6 deaths came after rounds that were kept"
    for place in ("100/examining", "/reporting"):
        f.start(1, at=place)
        f.until(1, "dead", 400)
    f.start(1)
    ends_well(f, 100)
    assert "closed without d1" in f.said(0)


def test_killed_while_clusters_form_and_back_after_the_end(tmp_path: Path) -> None:
    patience = {"meet_s": 90.0, "first_s": 60.0, "linger_s": 90.0}
    f = fleet(tmp_path / "fleet", 3, "rounds=5", "methods.orthomesh.clustering=agnes", patience=patience)
    try:
        f.start(2, at="0/turn 2")
        f.start(0)
        f.start(1)
        f.until(2, "dead", 200)
        f.until(0, "stays up to 90 s for d2, who missed the end", 200)
        f.start(2)
        ends_well(f, 5)
        assert "clusters 0+1 | 2" in f.said(0)  # the two agreed without it
        assert "d2 caught up after the end" in f.said(0)
        assert "caught up with d0, d1 after the end" in f.said(2)
    finally:
        f.close()


def test_frozen_cut_slow_late_and_parted(make: Callable[..., Fleet]) -> None:
    f = make(60)
    f.start(0)
    f.start(1)
    f.until(0, "round 1 of", 300)  # meet_s is over: the third is late
    f.start(2)
    f.until(2, "clusters 0+1+2", 300)
    f.signal(1, signal.SIGSTOP)
    time.sleep(30)
    f.signal(1, signal.SIGCONT)
    assert "closed without d1" in f.said(0)
    together(f)
    for relay in f.relays.values():
        relay.rate_bps, relay.delay_s = 200_000, 0.2
    together(f)
    for _ in range(8):  # whatever is on its way is lost
        time.sleep(0.4)
        for relay in f.relays.values():
            relay.cut()
    for relay in f.relays.values():
        relay.rate_bps, relay.delay_s = float("inf"), 0.0
    together(f)
    for relay in f.between({2}):
        relay.dead = True
    time.sleep(12)
    assert "closed without d0, d1" in f.said(2)
    for relay in f.between({2}):
        relay.dead = False
    together(f)
    ends_well(f, 60)


def together(f: Fleet, within_s: float = 100.0) -> None:
    """All three end a round together from now on."""
    before = len(f.said(0))
    end = time.monotonic() + within_s
    while not re.search(r"round \d+ of \d+, .*clusters 0\+1\+2", f.said(0)[before:]):
        assert time.monotonic() < end, f"they have not come together again:\n{f.said(0)[before:]}"
        time.sleep(0.1)


def test_a_full_disk(make: Callable[..., Fleet]) -> None:
    f = make(6, relays=False)
    run = f.files[1].parent / "run"
    run.mkdir()
    if os.getuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "none", str(run)]).returncode:
        pytest.skip("only root may mount a small disk")
    f.log(2).symlink_to("/dev/full")  # a log that never has room ends nothing either
    try:
        for k in range(3):
            f.start(k)
        f.until(1, "round 1 of", 300)
        filler = run / "filler"
        with suppress(OSError), open(filler, "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        f.until(1, "cannot be written", 100)
        f.until(1, "round 5 of", 100)
        filler.unlink()
        subprocess.run(["mount", "-o", "remount,size=20m", str(run)], check=True)
        ends_well(f, 6)
    finally:
        f.close()
        subprocess.run(["umount", "-l", str(run)], check=True)


SHIFTED = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *at) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int said = real(id, at);
    if (id == CLOCK_REALTIME) at->tv_sec += SHIFT;
    return said;
}
int gettimeofday(struct timeval *at, void *zone) {
    struct timespec now; clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec; at->tv_usec = now.tv_nsec / 1000; return 0;
}
time_t time(time_t *at) {
    struct timespec now; clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"""


def run_all(files: list[Path], environments: list[dict[str, str]], before: list[str]) -> list[str]:
    """Peers as commands, to their end: what each has said."""
    command = [*before, sys.executable, "-m", "orthomesh", "peer"]
    started = [
        subprocess.Popen([*command, str(file)], env={**os.environ, **more}, stdout=subprocess.PIPE, text=True,
                         stderr=subprocess.STDOUT)
        for file, more in zip(files, environments, strict=True)
    ]  # fmt: skip
    try:
        said = [one.communicate(timeout=600)[0] for one in started]
    finally:
        for one in started:
            one.kill()
    assert [one.returncode for one in started] == [0] * len(files), said
    return said


def test_clocks_an_hour_off(make: Callable[..., Fleet], tmp_path: Path) -> None:
    if not sys.platform.startswith("linux") or shutil.which("cc") is None:
        pytest.skip("needs a C compiler on Linux to shift a process's clock")
    patient = {"meet_s": 300.0, "first_s": 120.0, "least_s": 60.0, "gone_s": 20.0}  # it is about clocks, not haste
    f, environments = make(4, relays=False, patience=patient), [{}]
    (tmp_path / "clock.c").write_text(SHIFTED)
    for shift in (3600, -3600):
        library = tmp_path / f"clock{shift}.so"
        subprocess.run(["cc", "-shared", "-fPIC", f"-DSHIFT={shift}", "-o", library, tmp_path / "clock.c", "-ldl"],
                       check=True)  # fmt: skip
        environments.append({"LD_PRELOAD": str(library)})
    read = [sys.executable, "-c", "import time; print(time.time())"]
    assert abs(float(subprocess.check_output(read, env={**os.environ, **environments[1]})) - time.time() - 3600) < 60
    assert not [said for said in run_all(f.files, environments, []) if "closed without" in said]


@pytest.mark.parametrize("rule", ["netem delay 100ms 50ms loss 5%", "tbf rate 200kbit burst 128kb latency 2s"])
def test_in_a_namespace_of_its_own(rule: str, make: Callable[..., Fleet]) -> None:
    """The kernel itself loses, delays or holds back; on the loopback of a namespace made for it and nowhere else."""
    if os.getuid() or shutil.which("ip") is None or shutil.which("tc") is None:
        pytest.skip("network namespaces need root, ip and tc")
    name = f"faults-{os.getpid()}"
    inside = ["ip", "netns", "exec", name]
    if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode:
        pytest.skip("this machine makes no network namespaces")
    try:
        subprocess.run([*inside, "ip", "link", "set", "lo", "up"], check=True)
        asked = [*inside, "tc", "qdisc", "add", "dev", "lo", "root", *rule.split()]
        done = subprocess.run(asked, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"this kernel has no {rule.split()[0]}: {done.stderr.strip()}")
        patience = {"meet_s": 60.0, "first_s": 20.0, "least_s": 5.0, "gone_s": 2.0}
        f = make(4, relays=False, patience=patience)
        run_all(f.files, [{}] * 3, inside)
        for k, file in enumerate(f.files):
            states, rounds = load_devices(file.parent / "run" / "state" / "orthomesh.safetensors")
            assert (rounds, len({n.split("/")[1] for n in states[k].bank})) == (4, 2)
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)
