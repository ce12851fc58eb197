"""The real loops over a simulated world, in one thread: one seed decides who works next, what goes wrong and when.

How it works
- Every worker (a loop of one slot) has its own gate; all its calls to log, rows and outside pass there. A fault strikes at such a call,
  or at a moment of virtual time. A worker that crashes makes no further call; its slot starts again, as a supervisor would do it.
- At any call others may work first, nested on the stack: so a worker stands still in the middle of its transaction while its successor
  starts, takes over and goes on. Whoever waits for the log lets others work, too.
- Time moves by what is done, and faster while nothing is.
- At last the faults stop, and everything runs to rest.
"""

from __future__ import annotations

import heapq
import itertools
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

from backbone.contract import ResolvedService
from backbone.errors import Unavailable, Unconfirmed, WorkerEnded
from backbone.loops.act import Act, AskSibling
from backbone.loops.decide import Decide
from backbone.loops.project import Project
from backbone.loops.repartition import Repartition
from backbone.loops.take_in import Poll
from backbone.ports import Fragment, Place
from backbone.settings import Settings
from backbone.testing.simulated.clock import Clock, Edge, virtual
from backbone.testing.simulated.faults import AT_A_CALL, Fault, Kind
from backbone.testing.simulated.log import SimulatedLog, SimulatedRows
from backbone.testing.simulated.ports import Crash, Gate, GatedLog, GatedRows

TRANSACTION_TIMEOUT_S = 1.5
SESSION_TIMEOUT_S = 1.0

NESTED = 3
"""How many workers may stand still in the middle of a call at once."""

GLANCE_S = 0.02
"""How long who waits, waits at a time."""

PATIENCE = 3
"""How often on average every worker is asked in vain before time moves faster."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.01, 0.8
"""How far time moves at once while nothing is done: ever farther."""

REST_WITHIN_S = 120.0
"""Virtual seconds within which everything must come to rest once the faults have stopped."""

FROZEN_TURNS = 600

TURNS_AT_MOST = 400_000


class Loop(Protocol):
    """What a worker runs."""

    def step(self, timeout_s: float) -> bool:
        """Work; whether anything was done."""
        ...

    def close(self) -> None:
        """Leave."""
        ...


Dress = Callable[[ResolvedService, Gate], ResolvedService]
Make = Callable[[Gate, GatedLog, GatedRows, Settings], Loop]


@dataclass(frozen=True, slots=True)
class Role:
    """What a kind of worker does.

    Attributes:
        name: <service>.<purpose>.
        purpose: decide, project, repartition, effects, intake or door.
        group: the group it is a member of; empty if of none.
        many: whether it may have several slots.
    """

    name: str
    purpose: str
    context: str
    make: Make
    group: str = ""
    many: bool = True


@dataclass(eq=False, slots=True)
class Worker:
    """One incarnation of a slot.

    Attributes:
        busy: it is in the middle of a step.
        leaving: it was asked to stop and finishes.
    """

    role: Role
    slot: int
    gate: Gate
    loop: Loop | None = None
    busy: bool = False
    leaving: bool = False


@dataclass(eq=False, slots=True)
class _Waiting:
    """A fault that waits for its call."""

    fault: Fault
    skip: int


class Simulation:
    """A world, its workers and its faults. Use it inside `with simulation.running():`.

    Args:
        seed: decides everything.
        topics: every topic by name, and whether it is compacted.
        roles: the workers there are.
        faults: what goes wrong.
        misbehave: lets the outside misbehave until the answer is called.
        stage_of: where the aggregate of a record key stands, for the coverage.
        batches: sizes of batches to draw from.
        bites: what a poll may give at most, to draw from.
    """

    def __init__(
        self,
        seed: int,
        *,
        partitions: int,
        topics: Mapping[str, bool],
        faults: Sequence[Fault] = (),
        misbehave: Callable[[Random], Callable[[], None]] | None = None,
        stage_of: Callable[[bytes | None], str] | None = None,
        batches: Sequence[int] = (1, 7, 100, 500),
        bites: Sequence[int] = (1, 4, 100, 500),
    ) -> None:
        self.clock = Clock()
        self.lot = Random(f"{seed}/schedule")
        self.log = SimulatedLog(self.clock, self._meanwhile, TRANSACTION_TIMEOUT_S, SESSION_TIMEOUT_S)
        self.rows: dict[str, SimulatedRows] = {}
        self.down: set[str] = set()
        self.partitions = partitions
        self.seed = seed
        self.faults = list(faults)
        self.roles: dict[str, Role] = {}
        self.alive: list[Worker] = []
        self.turns = 0
        self.steps = 0
        self.defects: list[str] = []
        self.ended: Counter[str] = Counter()
        self.struck: Counter[tuple[str, str, str]] = Counter()
        self.bitten: set[int] = set()
        self._compacted = [name for name, compacted in topics.items() if compacted]
        self._misbehave = misbehave
        self._stage_of = stage_of
        self._batches = batches
        self._bites = bites
        self._settings: dict[tuple[int, int], Settings] = {}
        self._slots: dict[tuple[str, int], Worker | None] = {}
        self._waiting: dict[str, list[_Waiting]] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._undo: dict[int, Callable[[], None]] = {}
        self._idle = 0
        self._pause_s = FIRST_PAUSE_S
        self._depth = 0
        self._healed = False
        for name in topics:
            self.log.create_topic(name, partitions)

    # Building.

    def add(self, role: Role) -> None:
        """Let there be a slot 0 of a role."""
        self.roles[role.name] = role
        self._waiting[role.name] = []
        self.rows.setdefault(role.context, SimulatedRows())
        self._slots[role.name, 0] = None

    def add_service(self, service: ResolvedService, dress: Dress = lambda service, _: service, ask: AskSibling | None = None) -> None:
        """Let there be every worker of a service.

        Args:
            dress: gives a service its outside, for one incarnation of a worker whose calls pass a gate.
            ask: opens stubs of siblings for its effects.
        """
        for role in roles_of(service, self.clock, dress, ask):
            self.add(role)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Virtual time and drawn chance for all loops; in the end every worker is killed."""
        with virtual(self.clock, Random(f"{self.seed}/chance")):
            try:
                yield
            finally:
                self._slots.clear()
                for worker in list(self.alive):
                    self._kill(worker)

    def begin(self) -> None:
        """Start every slot."""
        for name, slot in list(self._slots):
            self._start(name, slot)

    def let_faults_come(self) -> None:
        """Plan the faults from now on."""
        for fault in self.faults:
            self.at(self.clock.now_s + fault.at_s, lambda fault=fault: self._come(fault))  # type: ignore[misc]

    def at(self, when_s: float, what: Callable[[], None]) -> None:
        """Let something happen at a moment."""
        heapq.heappush(self._events, (when_s, next(self._numbers), what))

    # Working.

    def turn(self) -> None:
        """Let one worker take one step."""
        self.turns += 1
        events = self._events
        while events and events[0][0] <= self.clock.now_s:
            heapq.heappop(events)[2]()
        free = [worker for worker in self.alive if not worker.busy] if self._depth else self.alive
        if not free:
            self.clock.now_s += GLANCE_S
            return
        if self._step(free[int(self.lot.random() * len(free))]):
            self._idle, self._pause_s = 0, FIRST_PAUSE_S
            self.clock.now_s += self.lot.random() * 0.002
            return
        self._idle += 1
        if self._idle > PATIENCE * len(self.alive) and self._idle % len(self.alive) == 0:
            # Rarely enough that everybody gets a turn in between: nobody is to sleep through what came in time.
            self.clock.now_s += self._pause_s
            self._pause_s = min(LONGEST_PAUSE_S, self._pause_s * 2)
        else:
            self.clock.now_s += 0.0002

    def work(self, until: Callable[[], bool], within_s: float) -> bool:
        """Work until something holds; False if it does not come about in time."""
        end_s = self.clock.now_s + within_s
        while True:
            if self._idle % 16 == 15 and until():
                return True
            if self.clock.now_s > end_s or self.turns > TURNS_AT_MOST:
                return until()
            self.turn()

    def heal(self) -> None:
        """Let no more faults come, undo those that last, and start every slot."""
        self._healed = True
        for waiting in self._waiting.values():
            waiting.clear()
        for undo in list(self._undo.values()):
            undo()
        self._undo.clear()
        for name, slot in list(self._slots):
            if slot:
                self._retire(name, slot)
        for name, slot in list(self._slots):
            if self._slots[name, slot] is None:
                self._start(name, slot)

    def rest(self, until: Callable[[], bool] = lambda: True) -> bool:
        """Work until nothing is under way and something holds; False if that does not come about in time."""
        return self.work(lambda: not self.unrest() and until(), REST_WITHIN_S)

    def unrest(self) -> str:
        """What is still under way; empty if nothing is."""
        if lacking := [f"{name}.{slot}" for (name, slot), worker in self._slots.items() if worker is None]:
            return f"{lacking[0]} does not run"
        for worker in self.alive:
            if worker.loop is not None and (found := self._unrest_of(worker)):
                return f"{worker.role.name}.{worker.slot}: {found}"
        return ""

    def restart_all(self) -> None:
        """Kill every worker; each slot starts again."""
        for worker in list(self.alive):
            self._kill(worker)

    def worker(self, name: str) -> Any:
        """The loop of slot 0 of a role."""
        worker = self._slots[name, 0]
        return None if worker is None else worker.loop

    # Watching the gates.

    def passing(self, gate: Gate, call: str) -> Kind | None:
        """Let others work first, if it is time; answer which fault strikes."""
        if gate.calls == gate.overtaken_at:
            gate.overtaken_at = gate.calls + self._gap()
            self._others(self.lot.randint(1, 6))
        of_worker = self._waiting[gate.worker]
        for waiting in of_worker:
            if waiting.fault.call != call:
                continue
            waiting.skip -= 1
            if waiting.skip < 0:
                of_worker.remove(waiting)
                return self._strike(waiting.fault, gate, call)
        return None

    def hanging(self, producer: Any) -> None:
        """The end of a transaction arrives later, or never."""
        arrive = self.log.hung_end(producer)
        if self.lot.random() < 0.7:
            self.at(self.clock.now_s + self.lot.uniform(0.0, 2.0), arrive)

    def late_end(self, producer: Any) -> None:
        """The end of a transaction that was sent twice arrives for the second time."""
        self.log.end_late(producer)

    def _gap(self) -> int:
        return 10 + int(self.lot.expovariate(1 / 200))

    def _others(self, turns: int) -> None:
        if self._depth >= NESTED:
            self.clock.now_s += GLANCE_S
            return
        self._depth += 1
        try:
            for _ in range(turns):
                self.turn()
        finally:
            self._depth -= 1

    def _meanwhile(self) -> None:
        self._others(self.lot.randint(1, 3))
        self.clock.now_s += GLANCE_S

    # Workers.

    def _start(self, name: str, slot: int) -> None:
        if self._depth > NESTED:
            self.at(self.clock.now_s + GLANCE_S, lambda: self._start(name, slot))
            return
        role = self.roles[name]
        gate = Gate(name, self, self.lot, self._bites)
        gate.waiting_for = self._waiting[name]
        gate.overtaken_at = self._gap()
        worker = self._slots[name, slot] = Worker(role, slot, gate)
        rows = GatedRows(gate, self.rows[role.context], lambda: role.context not in self.down)
        self.alive.append(worker)
        self._guarded(worker, lambda: self._build(worker, rows))

    def _build(self, worker: Worker, rows: GatedRows) -> bool:
        worker.loop = worker.role.make(worker.gate, GatedLog(worker.gate, self.log), rows, self._settings_of(worker.slot))
        return True

    def _settings_of(self, slot: int) -> Settings:
        batch = self.lot.choice(self._batches)
        if (slot, batch) not in self._settings:
            self._settings[slot, batch] = Settings(
                BACKBONE_PARTITIONS=self.partitions,
                BACKBONE_SLOT=slot,
                BACKBONE_BATCH=batch,
                BACKBONE_SESSION_TIMEOUT_S=SESSION_TIMEOUT_S,
                BACKBONE_TRANSACTION_TIMEOUT_S=TRANSACTION_TIMEOUT_S,
            )
        return self._settings[slot, batch]

    def _step(self, worker: Worker) -> bool:
        self.steps += 1
        loop = worker.loop
        return loop is not None and self._guarded(worker, lambda: loop.step(0.0))

    def _guarded(self, worker: Worker, work: Callable[[], bool]) -> bool:
        """Let a worker work, and see how it ends if it does."""
        worker.busy = True
        try:
            moved = work()
        except Crash:
            self._end(worker, "crashed")
        except (Unavailable, Unconfirmed, WorkerEnded) as error:
            self._end(worker, type(error).__name__)
        except Exception as error:  # noqa: BLE001 - whatever else ends a worker is what we look for
            self.defects.append(f"{worker.role.name}: {''.join(traceback.format_exception(error)[-6:])}")
            self._end(worker, "defect")
        else:
            if worker.gate.dead:
                self._end(worker, "crashed")
            elif worker.leaving and isinstance(worker.loop, Edge) and worker.loop.ended:
                self._end(worker, "stopped")
            return moved
        finally:
            worker.busy = False
        return True

    def _end(self, worker: Worker, how: str) -> None:
        if worker not in self.alive:
            return
        self.alive.remove(worker)
        self.ended[how] += 1
        worker.gate.dead = True
        for group, instance, member in worker.gate.members:
            self.log.silence(group, instance, member)
        if isinstance(worker.loop, Edge):
            worker.loop.close()
        if self._slots.get((worker.role.name, worker.slot)) is worker:
            self._slots[worker.role.name, worker.slot] = None
            self._restart(worker.role.name, worker.slot)

    def _restart(self, name: str, slot: int) -> None:
        def start() -> None:
            if (name, slot) in self._slots and self._slots[name, slot] is None:
                self._start(name, slot)

        delay_s = 0.05 if self._healed else self.lot.choice((0.0, 0.05, 0.05, 0.5, 1.5))
        self.at(self.clock.now_s + delay_s, start)

    def _kill(self, worker: Worker) -> None:
        worker.gate.dead = True
        if not worker.busy:
            self._end(worker, "killed")

    def _stop(self, worker: Worker) -> None:
        """Let a worker leave in order; one that is in the middle of a step is killed."""
        if worker.busy or worker.loop is None:
            self._kill(worker)
        elif isinstance(worker.loop, Edge):
            worker.leaving = True
            worker.loop.ask_to_stop()
        else:
            loop = worker.loop

            def close() -> bool:
                loop.close()
                return True

            self._guarded(worker, close)
            self._end(worker, "stopped")

    def _retire(self, name: str, slot: int) -> None:
        worker = self._slots.pop((name, slot), None)
        if worker is not None:
            self._stop(worker)

    def _unrest_of(self, worker: Worker) -> str:
        status = self._status_of(worker)
        purpose = worker.role.purpose
        if purpose == "decide":
            for number, partition in status["partitions"].items():
                ends = self.log.high_watermarks([(topic, number) for topic in partition["positions"]])
                for (topic, _), end in ends.items():
                    if partition["positions"][topic] < end and self._more(topic, number, partition["positions"][topic]):
                        return f"partition {number} is at {partition['positions'][topic]} of {end} of {topic}"
                if partition["deadlines"] or partition["waiting"] or partition["frozen"]:
                    return f"partition {number} waits: {partition['deadlines']} deadlines, {partition['waits_for']} {partition['frozen']}"
            return "" if len(status["partitions"]) == self.partitions else f"it has {len(status['partitions'])} partitions"
        if purpose == "project":
            rows, ends = self.rows[worker.role.context], self.log.high_watermarks([(status["topic"], n) for n in range(self.partitions)])
            marks = {n: rows.lies(Fragment(status["view"], status["version"], n)).watermark or 0 for n in range(self.partitions)}
            behind = [f"{n}: {mark} of {ends[status['topic'], n]}" for n, mark in marks.items() if mark != ends[status["topic"], n]]
            return f"it is behind, {', '.join(behind)}" if behind else ""
        if purpose == "effects":
            if status["open"] or status["restoring"] or len(status["partitions"]) < self.partitions:
                return f"{status['open']} commands are open: {status['waiting']}"
            topic = f"private.{worker.role.group.removesuffix('.effects')}.commands"
            asked = {record.key: record.value for record in self.log.history(topic)}
            return f"{open_} commands are not taken up" if (open_ := sum(value is not None for value in asked.values())) else ""
        if purpose == "intake":
            return "" if status["caught_up"] else f"it is not through: {status['error']}"
        return ""

    def _status_of(self, worker: Worker) -> dict[str, Any]:
        loop: Any = worker.loop
        status: dict[str, Any] = loop.status()
        return status

    def _more(self, topic: str, number: int, position: int) -> bool:
        """Whether a record lies behind a position, and not only markers and what was aborted."""
        entries = self.log.entries((topic, number))
        return any(SimulatedLog._committed(entry) is not None for entry in entries[position:])

    # Faults.

    def _come(self, fault: Fault) -> None:
        if self._healed:
            return
        if fault.kind in AT_A_CALL:
            self._waiting[fault.target].append(_Waiting(fault, fault.skip))
            return
        self._happen(fault)

    def _strike(self, fault: Fault, gate: Gate, call: str) -> Kind:
        self._note(fault, f"{gate.worker}.{call}", gate)
        if fault.kind is Kind.USURPED:
            self._succeed(fault.target)
            self._others(self.lot.randint(2, 40))
        elif fault.kind is Kind.OVERTAKEN:
            self._others(self.lot.randint(10, 80))
        elif fault.kind is Kind.FROZEN:
            self._freeze(fault, gate)
        return fault.kind

    def _freeze(self, fault: Fault, gate: Gate) -> None:
        """Let a worker stand still until its group has given it up, and another slot do its work."""
        self._scale(fault)
        for group, instance, member in gate.members:
            self.log.silence(group, instance, member)
        until_s, turns = self.clock.now_s + SESSION_TIMEOUT_S * self.lot.choice((0.5, 1.1, 2.0)), self.turns + FROZEN_TURNS
        while self.clock.now_s < until_s and self.turns < turns and not gate.dead:
            self._others(10)
        for group, instance, member in gate.members:
            self.log.speak(group, instance, member)

    def _scale(self, fault: Fault) -> None:
        """Let there be a second slot for a while."""
        target = fault.target
        if self.roles[target].many and (target, 1) not in self._slots:
            self._slots[target, 1] = None
            self._start(target, 1)
            self._for_a_while(fault, lambda: self._retire(target, 1))

    def _note(self, fault: Fault, where: str, gate: Gate | None = None) -> None:
        self.bitten.add(fault.number)
        stages = {self._stage_of(key) for key in gate.keys[:50]} if gate is not None and self._stage_of is not None else set()
        for stage in sorted(stages) or ["-"]:
            self.struck[fault.kind.value, where, stage] += 1

    def _succeed(self, name: str) -> None:
        """Start a successor of slot 0; the present worker goes on and does not know."""
        if self._slots[name, 0] is not None:
            self._start(name, 0)

    def _for_a_while(self, fault: Fault, undo: Callable[[], None]) -> None:
        def end() -> None:
            if self._undo.pop(fault.number, None) is not None:
                undo()

        self._undo[fault.number] = undo
        self.at(self.clock.now_s + fault.length_s, end)

    def _happen(self, fault: Fault) -> None:
        self._note(fault, fault.target or "world")
        with self.log.changed:
            self._happening(fault)

    def _happening(self, fault: Fault) -> None:
        target = fault.target
        match fault.kind:
            case Kind.STOP:
                if (worker := self._slots[target, 0]) is not None:
                    self._stop(worker)
            case Kind.KILL_CONTEXT:
                for worker in [worker for worker in self.alive if worker.role.context == target]:
                    self._kill(worker)
            case Kind.ZOMBIE:
                self._succeed(target)
            case Kind.SCALE:
                self._scale(fault)
            case Kind.REBALANCE:
                self.log.groups[self.roles[target].group].generation += 1
            case Kind.FENCE:
                for transactional_id in [one for one in self.log.epochs if one.startswith(self._prefix(target))]:
                    self.log.end_all_of(transactional_id)
            case Kind.FLUSH:
                self.rows[target].flush()
            case Kind.ROLL_BACK:
                copy = self.rows[target].copy()
                self._for_a_while(fault, lambda: self.rows[target].restore(copy))
            case Kind.ROWS_DOWN:
                self.down.add(target)
                self._for_a_while(fault, lambda: self.down.discard(target))
            case Kind.HIDE:
                self._hide(fault)
            case Kind.MARK_LATE:
                self.log.marks_late = lambda _: self.lot.random() < 0.5
                self._for_a_while(fault, self._mark)
            case Kind.COMPACT:
                self.log.compact(self._compacted)
            case Kind.OFFSETS_LOST:
                for worker in [worker for worker in self.alive if worker.role.name == target]:
                    self._kill(worker)
                self.log.groups[self.roles[target].group].committed.clear()
            case Kind.CLOCK:
                self.clock.skew_s = self.lot.choice((-3600.0, -2.0, 2.0, 3600.0, 3600.0))
                self._for_a_while(fault, self._set_clock)
            case Kind.OUTSIDE:
                if self._misbehave is not None:
                    self._for_a_while(fault, self._misbehave(self.lot))
            case _:
                raise AssertionError(fault)

    def _prefix(self, name: str) -> str:
        role = self.roles[name]
        return name.removesuffix(".decide") + ".decide." if role.purpose == "decide" else f"{name}."

    def _hide(self, fault: Fault) -> None:
        places: list[Place] = [place for place in sorted(self.log._entries) if self.lot.random() < 0.3]
        self.log.hidden.update({place: self.log.last_stable(place) for place in places})

        def show() -> None:
            for place in places:
                self.log.hidden.pop(place, None)

        self._for_a_while(fault, show)

    def _mark(self) -> None:
        self.log.marks_late = None
        with self.log.changed:
            self.log.mark()

    def _set_clock(self) -> None:
        self.clock.skew_s = 0.0


def roles_of(service: ResolvedService, clock: Clock, dress: Dress, ask: AskSibling | None) -> list[Role]:
    """Every worker of a service."""
    roles: list[Role] = []
    name, context = service.name, service.context
    if service.decider is not None:

        def decide(gate: Gate, log: GatedLog, rows: GatedRows, settings: Settings) -> Loop:
            return Decide(service, log, rows, settings, clock.time)

        def repartition(gate: Gate, log: GatedLog, rows: GatedRows, settings: Settings) -> Loop:
            return Repartition(service, log, settings)

        roles.append(Role(f"{name}.decide", "decide", context, decide, name))
        if service.decider.repartitioned:
            roles.append(Role(f"{name}.repartition", "repartition", context, repartition, f"{name}.repartition"))
    for view in service.views:

        def project(gate: Gate, log: GatedLog, rows: GatedRows, settings: Settings, view: Any = view) -> Loop:
            return Project(service, view, log, rows, settings, clock=clock.monotonic)

        roles.append(Role(view.name, "project", context, project, f"{view.name}.v{view.view.version}"))
    if service.effects:

        def effects(gate: Gate, log: GatedLog, rows: GatedRows, settings: Settings) -> Loop:
            assert ask is not None, f"{name} has effects: give add_service() an ask"
            act = Act(dress(service, gate), log, settings, ask)
            return WithStatus(act.run, clock, lambda: gate.moves, act.status)

        roles.append(Role(f"{name}.effects", "effects", context, effects, f"{name}.effects"))
    intake = service.service.intake
    if intake is not None and intake.source is not None:

        def poll(gate: Gate, log: GatedLog, rows: GatedRows, settings: Settings) -> Loop:
            taking = Poll(dress(service, gate), log, settings)
            return WithStatus(taking.run, clock, lambda: gate.moves, taking.status)

        roles.append(Role(f"{name}.intake", "intake", context, poll, many=False))
    return roles


class WithStatus(Edge):
    """An edge that tells how far it is."""

    def __init__(self, run: Any, clock: Clock, moved: Callable[[], int], status: Callable[[], dict[str, Any]]) -> None:
        super().__init__(run, clock, moved)
        self.status = status
