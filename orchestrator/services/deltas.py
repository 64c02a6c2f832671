"""Deltas: which ones a wave requires, which are there, what is done about the rest, and what people ask about them.

Nothing is built here: what is missing is queued, and ``builder`` takes it from there. Every use case that asks the
provider does so outside of any database session: a session to read, the provider, a short session to write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from orchestrator.core.delta_plan import CommitGraph, DeltaPlan, Required, makespan, plan_deltas
from orchestrator.core.fleet import Scope
from orchestrator.core.policy import Otherwise
from orchestrator.core.rules import Rules, WaveRules
from orchestrator.core.states import POLICY
from orchestrator.errors import ContentUnavailable, CorruptDelta, InvalidInput, NotFound, Refused, WrongState
from orchestrator.services.chronicle import rules_of
from orchestrator.services.commits import pair_text, resolve_commit
from orchestrator.services.delta_provider import DeltaPair, DeltaProvider
from orchestrator.services.delta_stock import (
    UNKNOWN_COST,
    Stock,
    StockTaker,
    commits_there,
    need_of,
    pair_of,
    required,
)
from orchestrator.services.delta_views import DeltaView, Usage, views
from orchestrator.services.house_log import note, several
from orchestrator.services.records import JobStatus, RolloutRow, WaveCount
from orchestrator.services.static_deltas import StaticDeltaPlan, static_delta_plan, wanted
from orchestrator.services.store import Store


@dataclass(frozen=True, slots=True)
class Ensured:
    """What a look at a wave's deltas came to: the plan, how many builds were queued, how many published deltas were
    taken over after verifying, and which recorded ones were found missing or broken."""

    plan: DeltaPlan
    queued: int = 0
    adopted: int = 0
    lost: tuple[DeltaPair, ...] = ()


@dataclass(frozen=True, slots=True)
class Preview:
    """What the waves of a rollout would need: each wave's plan, the graph with the costs, and the jobs there are.
    ``whole``: pairs for which it is settled that no delta is worth it, or possible."""

    waves: Mapping[str, DeltaPlan]
    graph: CommitGraph
    jobs: Mapping[DeltaPair, JobStatus]
    builders: int
    whole: frozenset[DeltaPair] = frozenset()

    @property
    def seconds(self) -> float:
        """How long all builds take together, each made once."""
        once = {(b.from_commit, b.to_commit): b.seconds for plan in self.waves.values() for b in plan.builds}
        return makespan(once.values(), self.builders)


@dataclass(frozen=True, slots=True)
class Dropped:
    """A delta that was dropped, or would be. ``bytes``: what it takes on disk; None when it was not recorded."""

    pair: DeltaPair
    bytes: int | None


@dataclass(frozen=True, slots=True)
class Verified:
    """What verifying a delta came to. ``queued``: it did not hold, was forgotten, and is built again."""

    pair: DeltaPair
    holds: bool
    sentence: str
    queued: bool = False


class Deltas:
    """The use cases. ``clock`` gives aware UTC; ``poke`` wakes the ticker after what it decides by has changed.
    ``makes_artifacts``: deltas between files are artifacts, which devices of every protocol take."""

    def __init__(
        self,
        store: Store,
        provider: DeltaProvider,
        clock: Callable[[], datetime],
        poke: Callable[[], None] = lambda: None,
        *,
        makes_artifacts: bool = False,
    ) -> None:
        self.makes_artifacts = makes_artifacts
        self._store = store
        self._provider = provider
        self._clock = clock
        self._poke = poke
        self._stock = StockTaker(provider)

    # ------------------------------------------------------------------------------------------ what waves need

    def ensure(self, row: RolloutRow, wave: str, *, now: datetime) -> Ensured:
        """Look at the wave's devices, write down what they need, queue what is missing. Idempotent.

        Under ``otherwise: full`` only as much is built as the policy's ``cover`` asks for: the rest is served whole.
        Otherwise the rest is built as well: its devices wait for it. Published deltas that nobody recorded are verified
        and recorded, recorded ones that are gone or broken are forgotten and queued.

        Raises WrongState before the start, NotFound for a wave that is not there, ContentUnavailable when the
        repository or the Target's commit is missing: then nothing is written, and a wave not looked at does not open.
        """
        if row.scope is None:
            raise WrongState(
                f"Rollout {row.state.rollout} has not started: nobody is in its waves yet.",
                remedy=f"`wave start {row.state.rollout}` starts it.",
            )
        rules = rules_of(row)
        count, needs, plan, stock = self._look(row.scope, wave, rules, now=now, adopt=True, builders=1)
        builds = {DeltaPair(build.from_commit, build.to_commit): build.weight for build in plan.builds}
        with self._store.writing() as w:
            for pair in stock.lost:
                w.forget_delta(pair)
            for record in stock.adopted:
                w.record_delta(record, now=now)
            w.set_needs(row.key, wave, count, [need_of(need) for need in needs], now=now)
            queued = w.queue_builds(builds, now=now)
        return Ensured(plan, queued, len(stock.adopted), stock.lost)

    def preview(
        self, scope: Scope, counts: Mapping[str, WaveCount], rules: Rules, *, now: datetime, builders: int = 1
    ) -> Preview:
        """What ``ensure`` would do for waves whose devices have been counted, and what it would cost on so many
        builders. Writes nothing. A Target whose commit is missing is no error here: its pairs count as unknown."""
        pairs = {pair_of(need) for count in counts.values() for need in self._required(scope, count, {})}
        with self._store.reading() as r:
            said = self._stock.take(r, pairs)
        there = commits_there(
            self._provider, {commit for pair in pairs for commit in (pair.from_commit, pair.to_commit)}
        )
        needs = {
            wave: [
                replace(need, known=need.known and there[need.to_commit])
                for need in self._required(scope, count, there)
            ]
            for wave, count in counts.items()
        }
        every = [need for found in needs.values() for need in found]
        known = {pair_of(need) for need in every if need.known}
        stock = self._stock.check({pair: said[pair] for pair in known}, now=now, adopt=False)
        reachable = {need.to_commit for need in every if not need.known and there[need.to_commit]}
        graph = self._stock.graph(known, stock, unknown_to=reachable)
        plans = {
            wave: plan_deltas(
                graph,
                found,
                cover=(bound := _wave_rules(rules.waves, wave)).cover,
                build_rest=bound.otherwise is not Otherwise.FULL,
                builders=builders,
            )
            for wave, found in needs.items()
        }
        jobs = {pair: job.status for pair, (_, job) in said.items() if job is not None}
        whole = frozenset(pair for pair, record in stock.ready.items() if record.whole)
        return Preview(plans, graph, jobs, builders, whole)

    def _required(self, scope: Scope, count: WaveCount, there: Mapping[str, bool]) -> tuple[Required, ...]:
        return required(scope, replace(count, whole={}) if self.makes_artifacts else count, there)

    def _look(
        self, scope: Scope, wave: str, rules: Rules, *, now: datetime, adopt: bool, builders: int
    ) -> tuple[WaveCount, Sequence[Required], DeltaPlan, Stock]:
        bound = _wave_rules(rules.waves, wave)
        with self._store.reading() as r:
            count = r.look(scope, wave, seen_since=now - rules.reach)
            required_pairs = [pair_of(need) for need in self._required(scope, count, {})]
            said = self._stock.take(r, required_pairs)
        there = commits_there(
            self._provider, [commit for pair in required_pairs for commit in (pair.from_commit, pair.to_commit)]
        )
        needs = self._required(scope, count, there)
        for need in needs:
            if not there[need.to_commit]:
                raise ContentUnavailable(
                    f"The commit {need.to_commit} of version {scope.version} is not in the repository: no delta to it"
                    " can be built, and no device could fetch it.",
                    remedy="Push it (`ostree pull-local`), or cancel the rollout.",
                )
        known = [pair_of(need) for need in needs if need.known]
        stock = self._stock.check({pair: said[pair] for pair in known}, now=now, adopt=adopt)
        graph = self._stock.graph(known, stock, unknown_to={need.to_commit for need in needs if not need.known})
        plan = plan_deltas(
            graph,
            needs,
            cover=bound.cover,
            build_rest=bound.otherwise is not Otherwise.FULL,
            builders=builders,
        )
        return count, needs, plan, stock

    # ------------------------------------------------------------------------------------------ by tag and version

    def static_deltas(
        self, version: int, *, tag: str | None, from_versions: Sequence[int] = (), hardware_id: str | None = None
    ) -> StaticDeltaPlan:
        """Which deltas bring the devices of a tag, and those on ``from_versions``, to a version. Writes nothing.

        Two versions with one commit need one delta; a version with a commit for each of two hardware ids needs two and
        is one line. Raises NotFound and InvalidInput as ``fioctl`` would, each with its remedy.
        """
        with self._store.reading() as r:
            asked = wanted(r, version, tag=tag, from_versions=from_versions, hardware_id=hardware_id)
            said = self._stock.take(r, asked.pairs)
        there = commits_there(self._provider, asked.commits)
        buildable = [pair for pair in asked.pairs if there.get(pair.from_commit or "", False) and there[pair.to_commit]]
        stock = self._stock.check({pair: said[pair] for pair in buildable}, now=self._clock(), adopt=False)
        costs = {pair: self._stock.estimate(pair) or UNKNOWN_COST for pair in buildable if pair not in stock.ready}
        return static_delta_plan(asked, there, stock.ready, {pair: job for pair, (_, job) in said.items()}, costs)

    def queue(self, plan: StaticDeltaPlan, *, by: str = POLICY) -> int:
        """Have built what the plan lacks, what failed before included; how many builds were queued."""
        return self._queue({item.pair: item.weight for item in plan.items if item.state.can_be_queued}, by)

    def request(self, pairs: Iterable[DeltaPair], *, by: str = POLICY) -> int:
        """Have these built, whoever needs them, what failed before included; how many builds were queued. Raises
        ContentUnavailable for a commit that the repository does not have, InvalidInput for a pair of one commit."""
        weights: dict[DeltaPair, float] = {}
        for pair in pairs:
            if pair.from_commit == pair.to_commit:
                raise InvalidInput(f"{pair_text(pair)} is one commit: no delta is needed.")
            cost = self._provider.estimate(pair)
            weights[pair] = max(cost.at_most_bytes - cost.likely_bytes, 1) / max(cost.build_seconds, 1.0)
        return self._queue(weights, by)

    def _queue(self, weights: dict[DeltaPair, float], by: str) -> int:
        if not weights:
            return 0
        with self._store.writing() as w:
            now = self._clock()
            queued = w.queue_builds(weights, now=now, again=True)
            if queued:
                whom = several([pair_text(pair) for pair in weights])
                note(w, now, "deltas_asked_for", whom, f"had deltas built: {whom}", by=by)
            return queued

    # ------------------------------------------------------------------------------------------ looking

    def resolve_commit(self, text: str, hardware_id: str | None = None) -> str:
        """The one commit that a person means by a version, a Target's name, a ref, or six or more first digits."""
        return resolve_commit(self._store, self._provider, text, hardware_id=hardware_id)

    def resolve_pair(self, from_text: str, to_text: str, hardware_id: str | None = None) -> DeltaPair:
        """As ``resolve_commit`` for both; ``nothing`` as from is a delta from scratch."""
        before = None if from_text == "nothing" else self.resolve_commit(from_text, hardware_id)
        return DeltaPair(before, self.resolve_commit(to_text, hardware_id))

    def list(self) -> Sequence[DeltaView]:
        """Every delta that is there, under way, given up or required: those under way first, then by devices."""
        with self._store.reading() as r:
            return views(r)

    def show(self, pair: DeltaPair) -> DeltaView:
        """One of them with its estimate and its log. Raises NotFound."""
        found = next((view for view in self.list() if view.pair == pair), None)
        if found is None:
            raise NotFound(
                f"Nobody needs a delta {pair_text(pair)}, and none is there.",
                remedy="`wave delta list` shows what there is.",
            )
        return found.with_estimate(self._stock.estimate(pair))

    # ------------------------------------------------------------------------------------------ dropping and verifying

    def drop(
        self,
        pair: DeltaPair | None = None,
        *,
        unused: bool = False,
        force: bool = False,
        dry_run: bool = False,
        by: str = POLICY,
    ) -> tuple[Dropped, ...]:
        """Drop one delta, or with ``unused`` all that no device runs the from commit of and no live rollout needs.

        Forgotten first, removed after: no device is promised what is being taken away, and a crash between leaves
        something that the next ``drop --unused`` takes. Raises Refused when a live rollout needs it (``force`` drops it
        all the same; it is then built again at the next look) or when it is being built, NotFound when there is none.
        """
        if (pair is None) != unused:
            raise InvalidInput("Say which delta to drop, or --unused: one of both.")
        published = set(self._provider.published())
        if pair is not None:
            return (self._drop_one(pair, published, force=force, dry_run=dry_run, by=by),)
        with self._store.reading() as r:
            usage = Usage.read(r)
            sizes = {record.pair: record.bytes for record in r.deltas()}
            busy = {job.pair for job in r.jobs(statuses={JobStatus.RUNNING, JobStatus.QUEUED}, limit=10_000)}
        idle = [known for known in sorted(published | set(sizes), key=_sortable) if not usage.used(known)]
        dropped = [Dropped(known, sizes.get(known)) for known in idle if known not in busy]
        if not dry_run:
            dropped = [item for item in dropped if self._take_away(item.pair, unless_used=True, by=by)]
        return tuple(dropped)

    def _drop_one(self, pair: DeltaPair, published: set[DeltaPair], *, force: bool, dry_run: bool, by: str) -> Dropped:
        with self._store.reading() as r:
            usage = Usage.read(r)
            record, job = r.delta(pair), r.job(pair)
        if record is None and pair not in published:
            raise NotFound(f"There is no delta {pair_text(pair)}.", remedy="`wave delta list` shows what there is.")
        if job is not None and job.status is JobStatus.RUNNING:
            raise Refused(f"The delta {pair_text(pair)} is being built.", remedy="Wait until it is ready.")
        if (waves := usage.waves_of(pair)) and not force:
            raise Refused(
                f"The delta {pair_text(pair)} is needed by {', '.join(waves)}.",
                remedy="Its devices would have to wait or load everything; --force drops it all the same.",
            )
        if not dry_run:
            self._take_away(pair, unless_used=False, by=by)
        return Dropped(pair, record.bytes if record else None)

    def _take_away(self, pair: DeltaPair, *, unless_used: bool, by: str) -> bool:
        with self._store.writing() as w:
            if unless_used and Usage.read(w).used(pair):
                return False
            w.forget_delta(pair)
            note(w, self._clock(), "delta_dropped", pair_text(pair), f"dropped the delta {pair_text(pair)}", by=by)
        self._stock.forget(pair)
        self._provider.drop(pair)
        return True

    def verify(self, pair: DeltaPair | None = None) -> tuple[Verified, ...]:
        """Really apply one delta, or everything recorded or published, each in a scratch repository.

        One that does not hold is forgotten and built again; one that holds and was not recorded is recorded.
        """
        if pair is not None:
            return (self._verify_one(pair),)
        with self._store.reading() as r:
            known = {record.pair for record in r.deltas()}
            building = {job.pair for job in r.jobs(statuses={JobStatus.RUNNING}, limit=10_000)}
        pairs = (known | set(self._provider.published())) - building
        return tuple(self._verify_one(each) for each in sorted(pairs, key=_sortable))

    def _verify_one(self, pair: DeltaPair) -> Verified:
        now = self._clock()
        try:
            record = self._provider.verify(pair)
        except (CorruptDelta, NotFound) as error:
            problem = error
        else:
            with self._store.writing() as w:
                if w.delta(pair) is None:
                    w.record_delta(record, now=now)
            return Verified(
                pair, True, f"{pair_text(pair)} holds: applied to a scratch repository, all checksums right."
            )
        self._stock.forget(pair)
        there = commits_there(self._provider, [pair.from_commit, pair.to_commit])
        with self._store.writing() as w:
            known = w.forget_delta(pair)
            if isinstance(problem, NotFound) and not known:
                raise problem
            if not all(there.values()):
                gone = ", ".join(commit for commit, is_there in there.items() if not is_there)
                queued = 0
                after = f" It cannot be built again: the repository has lost {gone}."
            else:
                weight = float(Usage.read(w).devices_on(pair) or 1)
                queued = w.queue_builds({pair: weight}, now=now, again=True)
                after = " It is built again." if queued else " A build of it is under way."
        self._poke()
        return Verified(pair, False, f"{pair_text(pair)} does not hold: {problem.message}{after}", bool(queued))


def _wave_rules(waves: Iterable[WaveRules], wave: str) -> WaveRules:
    known = {rules.wave: rules for rules in waves}
    if wave not in known:
        raise NotFound(f"There is no wave {wave}.", remedy=f"There are {', '.join(known)}.")
    return known[wave]


def _sortable(pair: DeltaPair) -> tuple[str, str]:
    return pair.to_commit, pair.from_commit or ""
