"""Numbers and methods as a reader meets them: percentages, sizes, colours, and the result in a sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Summary = Mapping[str, Any]
Row = Mapping[str, Any]

REFERENCES = ("base", "oracle", "hard_moe", "centralised")
"""Not contenders: the untouched model below, the upper bounds above."""

KNOWN = {
    "base": ("#8791A0", "the untouched model, before anybody learns"),
    "local": ("#56B4E9", "each device alone, with nothing exchanged"),
    "gossip": ("#E69F00", "both low-rank factors averaged among neighbours (Dec-LoRA)"),
    "orthomesh": ("#0072B2", "sparse orthogonal experts, exchanged and kept apart: our default reading"),
    "paper": ("#CC79A7", "the same method in the paper's own reading"),
    "oracle": ("#1F2937", "every prompt answered by its own device's expert: the upper bound"),
}
"""Colour (Okabe-Ito, so that colour-blind readers can tell them apart) and meaning of the methods we ship."""

MEANINGS = {
    "centralised": "one adapter trained on the pooled data of all devices, for which nothing is charged",
    "hard_moe": "an oracle: each task is put to the device that owns it and has learnt alone",
    "full": "every weight of the model trained and averaged among neighbours (FPFT)",
    "lori": "sparse adapters under a global magnitude mask, kept apart and merged for answering (LoRI)",
    "ffa": "one common projection at rest, expansions averaged among all in reach (FFA-LoRA)",
    "conlora": "one common projection at rest, expansions averaged among neighbours (ConLoRA)",
    "fedsa": "projections averaged among neighbours, every device keeps its expansion (FedSA-LoRA)",
    "rolora": "factors take turns, one is trained and averaged in a round (RoLoRA)",
    "adf": "factors take turns in training, both are averaged every round (ADF-LoRA)",
    "tad": "the same with turns as long as the graph needs to mix (TAD-LoRA)",
    "decaf": "updates averaged among neighbours and cut back to the rank (DeCAF)",
    "merged": "adapters trained alone and merged once, at the end",
    "flora": "adapters stacked by a server, their sum put into the base, all start anew (FLoRA)",
    "fedex": "factors averaged by a server, what that misses of the mean update put into the base (FedEx-LoRA)",
    "fair": "factors averaged by a server, which mends the expansion towards the mean update (LoRA-FAIR)",
    "fedalt": "an adapter of one's own beside the mean of all others, which rests (FedALT)",
    "slora": "a sparse change of the weights first, whose low-rank part adapters start from (SLoRA)",
    "sampled": "devices and ranks join a server's rounds by chance, likelier where it pays (adaptive federated LoRA)",
    "flasc": "adapters trained dense at a server's devices and sparse on the air (FLASC)",
    "choco": "adapters averaged among neighbours by their largest changes, with error feedback (CHOCO-SGD)",
    "fedsb": "a small matrix between two factors at rest, trained and averaged (Fed-SB)",
    "fly": "a sparse projection at rest, of whose ranks the strongest act on a token, expansions averaged (FlyLoRA)",
    "olora": "adapters kept orthogonal to those heard of others, never averaged, added up to answer (O-LoRA)",
    "soft": "orthogonal ranks, of which a server's devices send the strongest within a latency (SOFT)",
}
"""Meaning of the kinds without a colour of their own."""

SPARE = ("#009E73", "#D55E00", "#7A5BA6", "#8C6D31", "#17A2A8", "#B0413E")
"""Colours for methods we do not know, in the order in which they appear."""

PREFIXES = {-3: "n", -2: "µ", -1: "m", 0: "", 1: "k", 2: "M", 3: "G", 4: "T"}


def headline(summary: Summary) -> str:
    """The result of a run in one or two sentences that hold whatever the numbers are.

    >>> ours = {"label": "orthomesh", "kind": "orthomesh", "mean": 0.25, "bytes_per_device": {"values": 500}}
    >>> other = {"label": "gossip", "kind": "gossip", "mean": 0.5, "bytes_per_device": {"values": 2000}}
    >>> print(headline({"devices": [{}, {}], "tasks": ["a", "b"], "rounds": 1, "rows": [other, ours]}))
    2 devices, 1 round: with orthomesh every device answers every task, and 25.0 % of the answers are right, \
for 500 B sent per device; gossip is ahead with 50.0 %, for 2.00 kB.
    """
    lead = lead_row(summary)
    start = f"{count(len(summary['devices']), 'device')}, {count(summary['rounds'], 'round')}: "
    if lead is None:
        return start + "no method was run."
    many = len(summary["devices"]) > 1 and len(summary["tasks"]) > 1
    who = "every device answers every task" if many else "the devices answer"
    if lead.get("clusters") and lead["experts_held"] < len(summary["devices"]):
        who = f"a device answers with {lead['experts_held']:g} of {len(summary['devices'])} experts"
    sentence = f"{start}with {lead['label']} {who}, and {percent(lead['mean'])} of the answers are right"
    oracle = find(summary, "oracle")
    if oracle is not None and oracle is not lead and oracle["mean"] > 0:
        sentence += f" ({percent(lead['mean'] / oracle['mean'])} of the oracle)"
    sentence += f", {_price(lead)} sent per device" if total_bytes(lead) else ", without a byte sent"
    return sentence + "".join(f"; {_against(row, lead)}" for row in _rivals(summary, lead)) + "."


def lead_row(summary: Summary) -> Row | None:
    """The row the report speaks of: ours if it was run, else the paper's, else the best, else the first."""
    rows: list[Row] = list(summary["rows"])
    contenders = [row for row in rows if key(row) not in REFERENCES]
    for label in ("orthomesh", "paper"):
        for row in contenders:
            if label in (row["label"], row["kind"]):
                return row
    if contenders:
        return max(contenders, key=lambda row: float(row["mean"]))
    return rows[0] if rows else None


def find(summary: Summary, label: str) -> Row | None:
    """The row with this label, else the first of this kind, else None."""
    rows: list[Row] = list(summary["rows"])
    named = [row for row in rows if row["label"] == label] + [row for row in rows if row["kind"] == label]
    return next(iter(named), None)


def _rivals(summary: Summary, lead: Row) -> list[Row]:
    """Gossip averaging where it was run, and whoever did best if that is neither gossip nor the lead."""
    rows: list[Row] = list(summary["rows"])
    others = [row for row in rows if row is not lead and (key(row) == "base" or key(row) not in REFERENCES)]
    gossip = find(summary, "gossip")
    rivals = [row for row in others if row is gossip]
    best = max(others, key=lambda row: float(row["mean"]), default=lead)
    if best is not gossip and best["mean"] > lead["mean"]:
        rivals.append(best)
    return rivals


def _against(row: Row, lead: Row) -> str:
    """How a rival did, seen from the lead; equal means equal as printed."""
    mine, theirs = percent(lead["mean"]), percent(row["mean"])
    price = f", {_price(row)}" if total_bytes(row) else ", without a byte sent"
    if mine == theirs:
        return f"{row['label']} reaches the same{price}"
    verb = "is ahead with" if row["mean"] > lead["mean"] else "reaches"
    return f"{row['label']} {verb} {theirs}{price}"


def _price(row: Row) -> str:
    return f"for {size(total_bytes(row))}"


def key(row: Row) -> str:
    """What a row counts as: its label if we know it, else its kind."""
    return str(row["label"] if row["label"] in KNOWN else row["kind"])


def meaning(row: Row) -> str:
    """What a row stands for, in words; its kind where we do not know it."""
    return KNOWN[key(row)][1] if key(row) in KNOWN else MEANINGS.get(str(row["kind"]), str(row["kind"]))


def colours(summary: Summary) -> dict[str, str]:
    """One fixed colour per label: ours where the label (or, for the first of its kind, the kind) is known."""
    chosen = {row["label"]: KNOWN[row["label"]][0] for row in summary["rows"] if row["label"] in KNOWN}
    spare = 0
    for row in summary["rows"]:
        if row["label"] in chosen:
            continue
        colour = KNOWN.get(row["kind"], ("",))[0]
        if not colour or colour in chosen.values():
            colour, spare = SPARE[spare % len(SPARE)], spare + 1
        chosen[row["label"]] = colour
    return chosen


def total_bytes(row: Row, per: str = "bytes_per_device") -> float:
    """Bytes over all columns."""
    return float(sum(row[per].values()))


def percent(fraction: float) -> str:
    """A fraction as a percentage with one decimal.

    >>> percent(0.923)
    '92.3 %'
    """
    return f"{100 * fraction:.1f} %"


def size(num_bytes: float) -> str:
    """Bytes with a decimal prefix and three digits.

    >>> size(31_024)
    '31.0 kB'
    """
    return quantity(num_bytes, "B")


def quantity(value: float, unit: str) -> str:
    """A quantity with the prefix that leaves one to three digits before the point.

    >>> quantity(0.00123, "J")
    '1.23 mJ'
    """
    if value == 0:
        return f"0 {unit}"
    value = float(f"{value:.3g}")  # rounded first, so that 999.9 kB becomes 1.00 MB
    power = _power(value, unit)
    scaled = value / 1000.0**power
    whole = unit == "B" and power == 0
    return f"{significant(scaled) if not whole else f'{scaled:.0f}'} {PREFIXES[power]}{unit}"


def setting(value: float, unit: str) -> str:
    """A quantity somebody chose, without zeros that mean nothing.

    >>> setting(1e6, "Hz")
    '1 MHz'
    """
    number, prefixed = quantity(value, unit).split(" ")
    return f"{float(number):g} {prefixed}"


def significant(value: float) -> str:
    """Three significant digits, thousands grouped.

    >>> significant(0.01234), significant(12.345), significant(123456)
    ('0.0123', '12.3', '123,456')
    """
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f}"
    magnitude = math.floor(math.log10(abs(float(f"{value:.3g}"))))
    return f"{value:,.{max(0, 2 - magnitude)}f}" if magnitude >= -6 else f"{value:.2e}"


def column(values: Sequence[float], unit: str) -> tuple[list[str], str]:
    """Cells of one table column, all in one unit and with one number of decimals, to compare by eye.

    The prefix fits the geometric middle of the values that are not zero; the decimals show three digits
    of the smallest of them, as far as five digits do for the largest. Zero is "0", what rounds to it is not.

    >>> column([0, 31, 31_024, 3_100_000], "B")
    (['0', '<0.1', '31.0', '3,100.0'], 'kB')
    """
    some = [v for v in values if v > 0]
    if not some:
        return ["0" for _ in values], unit
    power = _power(math.sqrt(min(some) * max(some)), unit)
    if unit == "B" and power == 0:
        return [f"{v:,.0f}" for v in values], unit
    scale = 1000.0**power
    digits = max(1, 1 + math.floor(math.log10(max(some) / scale)))
    decimals = max(0, min(5 - digits, 3, 2 - math.floor(math.log10(min(some) / scale))))
    least = 0.5 * 10.0**-decimals
    cells = [f"{v / scale:,.{decimals}f}" if v / scale >= least else f"<{2 * least:g}" for v in values]
    return ["0" if v == 0 else c for v, c in zip(values, cells, strict=True)], f"{PREFIXES[power]}{unit}"


def _power(value: float, unit: str) -> int:
    """Power of 1000 whose prefix suits a value; there are no thousandths of a byte."""
    power = math.floor(math.log10(value) / 3 + 1e-9)
    return min(4, max(0 if unit == "B" else -3, power))


def duration(seconds: float) -> str:
    """A time a person waits.

    >>> duration(123.4), duration(5400), duration(3.21)
    ('2 min 3 s', '1 h 30 min', '3.21 s')
    """
    if seconds < 60:
        return quantity(seconds, "s")
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def count(number: int, noun: str) -> str:
    """A number of things.

    >>> count(1, "round"), count(5, "round")
    ('1 round', '5 rounds')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
