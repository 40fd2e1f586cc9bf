"""The words of the house: what a round, a device, a message and a method are. Imports nothing from the package.

Two habits run through this file. State and information never mix: what must survive a restart is in
`DeviceState`, what is only worth looking at is returned beside it. And whatever travels is small and public
(`Facts`) or framed bytes (`Message`), never an object.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

from numpy.typing import NDArray

Y = TypeVar("Y")

Array = NDArray[Any]
Arrays = Mapping[str, Array]

Column = Literal["values", "mask", "codes", "control", "one_off"]
COLUMNS: tuple[Column, ...] = ("values", "mask", "codes", "control", "one_off")


class Check(NamedTuple):
    """What decides over a free answer that need not be the target word for word.

    number: the last number in it is that of `after`. program: `before`, the answer and `after` run without an error.
    """

    kind: Literal["number", "program"]
    before: str
    after: str


class Example(NamedTuple):
    """One row of a task: the model reads `prompt + target + <eos>` and is scored on the target.

    `choices` are the admissible targets, the right one among them; empty means free generation, and `check` says what
    is right: none, exactly the target.
    """

    prompt: str
    target: str
    choices: tuple[str, ...] = ()
    check: Check | None = None


@dataclass(frozen=True)
class Round:
    """Which round this is. Every random draw of a round is keyed by (seed, purpose, index, ids)."""

    seed: int
    index: int
    total: int

    @property
    def is_last(self) -> bool:
        """Whether no round follows, so that whatever was held back must travel now."""
        return self.index == self.total - 1


@dataclass(frozen=True, kw_only=True)
class DeviceState:
    """What one device must not lose.

    own: what it trains and how far it has come, by name; travels to wherever compute runs.
    bank: what it received from others, by name; stays with the device, `fit` never sees it.
    """

    id: int
    own: Arrays
    bank: Arrays = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What one device tells everybody it can reach, before anything is planned.

    public: small arrays a method publishes (densities, task code, ...).
    columns: bytes of these facts as framed, by column; what announcing them costs.
    payload_bits: size of what the device would send next, which decides which links can carry it.
    gains: linear power gain to every other device it hears, added by the air.
    agreed: whom it has just agreed with to be in one cluster, itself included, added where devices talk about it.
    """

    id: int
    public: Arrays
    columns: Mapping[Column, int]
    payload_bits: int
    gains: Mapping[int, float] = field(default_factory=dict)
    agreed: tuple[int, ...] = ()


class Forming(NamedTuple):
    """Devices that are to find their clusters by talking to each other.

    leaves: what each has told of itself, by id, as `topology.messages.Leaf`. price: of a union, from the leaves of its
    members in order of id; none where it is not allowed.
    """

    leaves: Mapping[int, Any]
    price: Callable[[tuple[Any, ...]], tuple[float, float] | None]


class Formed(NamedTuple):
    """A partition of them; bytes each hosted device has said, by id; bytes that sockets would carry beside it."""

    clusters: tuple[tuple[int, ...], ...]
    told: Mapping[int, int]
    framing: Mapping[int, int]


class Edge(NamedTuple):
    """One directed transfer of a phase.

    weight: entry of the mixing matrix. carries: ids of the devices or clusters whose parts travel. fresh: the
    receiver lacks what is told only once (masks, task codes), so it travels too. room_bits: most bits the sender's
    links carry this round, where the method cuts its message down to them. held: version of the sender's values that
    the receiver has. masked: it has the masks already, so that they do not travel even where it is fresh.
    """

    src: int
    dst: int
    weight: float = 1.0
    carries: tuple[int, ...] = ()
    fresh: bool = False
    room_bits: float = float("inf")
    held: int = 0
    masked: bool = False


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Transfers at the same time; broadcast reaches all receivers at once. clusters: if someone has left one."""

    name: str
    edges: tuple[Edge, ...]
    cast: Literal["broadcast", "unicast"] = "broadcast"
    clusters: tuple[tuple[int, ...], ...] = ()

    @cached_property
    def outgoing(self) -> Mapping[int, Sequence[Edge]]:
        """Edges by sender, in order; sorted once, however many devices ask."""
        found: dict[int, list[Edge]] = {}
        for edge in self.edges:
            found.setdefault(edge.src, []).append(edge)
        return found


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Who talks to whom this round: a pure function of shared facts, the same on every device.

    A phase without edges is allowed: nothing travels, but every device merges what it has.
    clusters: a partition of the devices, for the record only; empty where the method has none.
    """

    phases: tuple[Phase, ...]
    clusters: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Message:
    """One transmission: framed bytes from `src` to each of `dsts`; `columns` splits len(payload) by purpose.

    lost: receivers that do not get it, once it was on the air.
    """

    src: int
    dsts: tuple[int, ...]
    payload: bytes
    columns: Mapping[Column, int]
    lost: tuple[int, ...] = ()


class Envelope(NamedTuple):
    """What arrives over one edge. `payload` is None where the air erased it, it came too late, or nothing was said.

    said: whether its sender had something to say over this edge, as far as is known: if not, nothing was lost.
    """

    edge: Edge
    payload: bytes | None
    said: bool = True


@dataclass(frozen=True, kw_only=True)
class Spend:
    """What one device spent on the air; adds up.

    bytes_sent: by column, length of what was framed. airtime_s: seconds its transmitter was on.
    energy_j: radiated energy. lost: transfers that did not arrive. power_w: highest power used.
    """

    bytes_sent: Mapping[Column, int] = field(default_factory=dict)
    airtime_s: float = 0.0
    energy_j: float = 0.0
    lost: int = 0
    power_w: float = 0.0

    def __add__(self, other: Spend) -> Spend:
        return Spend(
            bytes_sent={
                c: self.bytes_sent.get(c, 0) + other.bytes_sent.get(c, 0)
                for c in COLUMNS
                if c in self.bytes_sent or c in other.bytes_sent
            },
            airtime_s=self.airtime_s + other.airtime_s,
            energy_j=self.energy_j + other.energy_j,
            lost=self.lost + other.lost,
            power_w=max(self.power_w, other.power_w),
        )

    @property
    def total_bytes(self) -> int:
        """Sum over the columns."""
        return sum(self.bytes_sent.values())


@dataclass(frozen=True)
class Cost:
    """Spend per hosted device, and how long the round held the air; a monoid, so partial costs may be added.

    elapsed_s: sum over phases of the longest transfer in the phase (phases follow one another).
    """

    by_device: Mapping[int, Spend] = field(default_factory=dict)
    elapsed_s: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        ids = sorted({*self.by_device, *other.by_device})
        none = Spend()
        spent = {k: self.by_device.get(k, none) + other.by_device.get(k, none) for k in ids}
        return Cost(spent, self.elapsed_s + other.elapsed_s)


@dataclass(frozen=True, kw_only=True)
class Learnt:
    """What local fine-tuning is worth telling: mean loss of the first and the last tenth of its steps.

    trained: parameters the last step moved.
    """

    first_loss: float
    last_loss: float
    steps: int
    trained: int


class Link(NamedTuple):
    """What became of one transfer to a hosted device."""

    phase: str
    src: int
    dst: int
    arrived: bool


@dataclass(frozen=True, kw_only=True)
class RoundInfo:
    """What one round is worth telling; never carried into the next.

    framing: bytes by hosted device that sockets would carry beside payloads and facts.
    """

    index: int
    plan: Plan
    learnt: Mapping[int, Learnt]
    cost: Cost
    links: tuple[Link, ...]
    framing: Mapping[int, int] = field(default_factory=dict)


class TaskSketch(NamedTuple):
    """Where a task's prompts lie, in few numbers: what a choice of expert needs to know of it.

    mean: of the sketches of its prompts. [m]  covariance: of the same. [m, m]
    reach: how far out its own prompts go, 99th percentile of their squared distance over its mean; >= 0.
    """

    mean: Array
    covariance: Array
    reach: float


@dataclass(frozen=True, kw_only=True)
class Expert:
    """One low-rank adapter ready to answer: y += (alpha / r) B (A x); or the base with all its weights changed.

    owner: device (or group) whose task it knows. A: projection without scaling, flat over the layout, [sum r k]. B:
    expansion under its mask, flat, [sum d r]. code: task code, concatenated over the layout's inputs, [sum k]. sketch:
    of its prompts. None where nobody chooses by it. seed, kind: what A was drawn from, if it was. weights: change of
    every weight of the base, flat, [P]; then A and B are empty. beside: under `mixer`, A and B of another adapter, and
    G, whose softmax(G x) weighs both, this first, [2, sum k]. bias: added to |A x| in the choice of `topk`, [L r].
    """

    owner: int
    A: Array
    B: Array
    code: Array | None = None
    sketch: TaskSketch | None = None
    seed: int | None = None
    kind: str | None = None
    weights: Array | None = None
    beside: tuple[Array, Array, Array] | None = None
    bias: Array | None = None


Choice = Literal["only", "discriminant", "nearest", "topk", "norm", "arrow", "mixer"]


@dataclass(frozen=True, kw_only=True)
class Bank:
    """All a device answers with, and how a prompt finds its expert.

    choice: `only`: the first expert answers everything; once per prompt: `discriminant` by task sketches,
    `nearest` by task code; per token and layer: `topk` over ranks, eq. (29), `norm` of the update (SpectR),
    `arrow` along its strongest direction, `mixer` the first expert and what is `beside` it (FedALT). blocks:
    transformer blocks of the base that are read for a sketch. soft: the two likeliest experts share a prompt that is
    hard to tell. refuses: prompts far from every task go to the base. top_k, scope, gated: of `topk`: ranks kept (0:
    all), largest over what, whether the task code gates.
    """

    experts: tuple[Expert, ...]
    choice: Choice = "only"
    blocks: int = 1
    soft: bool = False
    refuses: bool = False
    top_k: int = 0
    scope: Literal["joint", "expert", "signed"] = "joint"
    gated: bool = False


def plans_alone(facts: Mapping[int, Facts], t: Round) -> Forming | None:
    """No clusters that would have to be talked about."""
    return None


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to fine-tune together: seven functions that act in the round, and one that evaluation asks.

    init(id): a device before the first round. fit(device, t): local fine-tuning; the only one that may be
    slow and the only one that sees the base model. describe(device, t): what it tells everybody.
    form(facts, t): who has to find a cluster by talking before there is a plan, if anybody; pure. plan(facts, t):
    pure. send(device, phase, t): at most one message per receiver. merge(device, inbox, phase, t): one envelope per
    incoming edge, in order of sender. bank(device): what it answers with. made_of(device): a digest of all that its
    bank depends on, where that takes less time than the bank; none: nobody needs it.
    """

    init: Callable[[int], DeviceState]
    fit: Callable[[DeviceState, Round], tuple[DeviceState, Learnt]]
    describe: Callable[[DeviceState, Round], Facts]
    plan: Callable[[Mapping[int, Facts], Round], Plan]
    send: Callable[[DeviceState, Phase, Round], tuple[Message, ...]]
    merge: Callable[[DeviceState, Sequence[Envelope], Phase, Round], DeviceState]
    bank: Callable[[DeviceState], Bank]
    form: Callable[[Mapping[int, Facts], Round], Forming | None] = plans_alone
    made_of: Callable[[DeviceState], bytes] | None = None


@runtime_checkable
class Air(Protocol):
    """What the air allows and what it costs; simulated or measured."""

    def announce(self, facts: Mapping[int, Facts], t: Round) -> tuple[dict[int, Facts], Cost]:
        """Facts of hosted devices with the gains their radios hear, and what telling them costs."""
        ...

    def transmit(self, outbox: Sequence[Message], phase: Phase, t: Round) -> tuple[list[Message], Cost]:
        """The same messages with `dsts` reduced to the receivers that will get them, and the cost."""
        ...


@runtime_checkable
class Engine(Protocol):
    """Where compute runs and how bytes move. Four verbs; the round knows nothing else of the machine."""

    @property
    def hosted(self) -> tuple[int, ...]:
        """Ids of the devices this process advances, ascending."""
        ...

    def map(self, fn: Callable[..., Y], items: Mapping[int, Any], *args: Any) -> dict[int, Y]:
        """Apply `fn(item, *args)` to each item, wherever compute runs; results in order of id."""
        ...

    def share(self, facts: Mapping[int, Facts], t: Round) -> dict[int, Facts]:
        """Facts of all reachable devices, in order of id."""
        ...

    def form(self, forming: Forming, t: Round) -> Formed:
        """Clusters that the devices agree on among themselves."""
        ...

    def exchange(self, outbox: Sequence[Message], phase: Phase, t: Round) -> dict[int, list[Envelope]]:
        """Exactly one envelope per incoming edge of each hosted device, in order of sender."""
        ...
