"""A long fuzz of everything that reads bytes from the network: `python -m benchmarks.fuzz --seconds 600`.

With atheris installed it is guided by coverage; without it, valid messages are mutated at random, keyed by a seed. A
target passes if it ends in what it documents, a `Refused` or a `ValueError` or a result, within its memory.
"""

from __future__ import annotations

import argparse
import functools
import json
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from orthomesh.engines.gathering import WAITED, Known, pack_known, read_known
from orthomesh.engines.talking import pack_turn, read_outcome, read_turn
from orthomesh.engines.wire import Kind, Letter, Refused, Stage, pack, pack_facts, unpack, unpack_facts
from orthomesh.exchange.payload import Section, decode, encode
from orthomesh.rng import stream
from orthomesh.topology.messages import Cluster, Message
from orthomesh.topology.messages import Kind as Talked
from orthomesh.topology.messages import encode as encode_talked
from orthomesh.types import Facts

MOST_BYTES = 1 << 20
"""That one input may take in memory."""


def target(data: bytes) -> str:
    """Everything a device does with bytes before a method sees them; what became of them."""
    try:
        letter = unpack(data, MOST_BYTES)
        if letter.kind is Kind.FACTS:
            unpack_facts(letter.body, letter.src, MOST_BYTES)
        elif letter.kind is Kind.PARCEL:
            decode(letter.body, MOST_BYTES)
        elif letter.kind is Kind.TALK:
            read_turn(letter.body, letter.src, letter.dst, letter.stage.round)
        elif letter.kind is Kind.OUTCOME:
            read_outcome(letter.body, letter.src, letter.stage.round)
        elif letter.kind is Kind.ASK:
            read_known(letter.body)
        elif letter.kind is Kind.HELLO:
            json.loads(letter.body)
    except Refused as refused:
        return refused.why.name
    except (ValueError, RecursionError) as error:
        return type(error).__name__
    return "taken"


def sealed_target(data: bytes) -> None:
    """The same for a fuzzer that cannot find a checksum: the first byte says whose body the rest is, 0 nobody's."""
    letter = seeds()[data[0] % len(Kind)] if data and data[0] else None
    target(pack(Letter(**{**vars(letter), "body": data[1:]})) if letter else data[1:])


@functools.cache
def seeds() -> list[Letter]:
    """Valid messages of every kind, to start from."""
    arrays = {"density": np.linspace(0, 1, 21, dtype=np.float32), "have": np.arange(20, dtype=np.uint32).reshape(10, 2)}
    frame = encode([Section("values", name, array) for name, array in arrays.items()]).payload
    facts = Facts(id=1, public=arrays, columns={"control": 90}, payload_bits=8000, gains={0: 1e-9, 2: 2e-9})
    mine = Cluster(2, (1,))
    said = [Message(Talked.PROPOSE, 1, 1, 0, 5, mine), Message(Talked.ACK, 1, 1, 0, 2)]
    bodies = {
        Kind.FACTS: pack_facts(facts), Kind.PARCEL: frame, Kind.HELLO: b'{"run": "a", "life": 1}',
        Kind.TALK: pack_turn(1, said), Kind.OUTCOME: encode_talked(Message(Talked.SUMMARY, 1, 1, cluster=mine)),
        Kind.ASK: pack_known(Known(WAITED, {0: bytes(8), 3: bytes(8)})),
    }  # fmt: skip
    return [
        Letter(kind=kind, run=bytes(8), src=1, dst=0, life=1, stage=Stage(0, 1), body=bodies.get(kind, b""))
        for kind in Kind
    ]


def mutated(letter: Letter, draw: np.random.Generator) -> bytes:
    """A message changed at a few places: in its body with a checksum that fits again, or anywhere."""
    sealed = bool(draw.integers(2))
    data = bytearray(letter.body if sealed else pack(letter))
    for _ in range(int(draw.integers(1, 6))):
        at = int(draw.integers(len(data) + 1))
        match int(draw.integers(4)):
            case 0 if data:
                data[at % len(data)] = int(draw.integers(256))
            case 1:
                data[at:at] = draw.bytes(int(draw.integers(1, 9)))
            case 2:
                del data[at : at + int(draw.integers(1, 9))]
            case _ if data:
                wide = int(draw.choice([1, 2, 4, 8]))
                data[at : at + wide] = bytes([(0, 255)[int(draw.integers(2))]]) * wide
    made = bytes(data)
    return pack(Letter(**{**vars(letter), "body": made})) if sealed else made


def by_chance(seconds: float, seed: int) -> Counter[str]:
    """Mutate at random until time is up.

    Args:
        seconds: how long.
        seed: of the draws.

    Returns:
        How many inputs ended how.
    """
    ends: Counter[str] = Counter()
    end, start, n = time.monotonic() + seconds, seeds(), 0
    while time.monotonic() < end:
        draw = stream(seed, "fuzz", n)
        for letter in start:
            ends[target(mutated(letter, draw))] += 1
        n += 1
    return ends


def main() -> None:
    """Fuzz, and print how the inputs ended and how much memory the process took at most."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--random", action="store_true", help="even if atheris is there")
    given = parser.parse_args()
    try:
        import atheris
    except ImportError:
        atheris = None
    if atheris is None or given.random:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        ends = by_chance(given.seconds, given.seed)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(f"{sum(ends.values())} inputs in {given.seconds:g} s, none crashed: {dict(ends.most_common())}")
        print(f"peak memory {before / 1024:.0f} MB before, {after / 1024:.0f} MB after")
        return
    atheris.instrument_all()
    with tempfile.TemporaryDirectory() as corpus:
        for letter in seeds():
            (Path(corpus) / letter.kind.name).write_bytes(bytes([Kind(letter.kind) - 1 or len(Kind)]) + letter.body)
        options = [
            f"-max_total_time={int(given.seconds)}",
            "-rss_limit_mb=1024",
            "-max_len=4096",
            f"-seed={given.seed + 1}",
        ]
        atheris.Setup([sys.argv[0], corpus, *options], sealed_target)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
