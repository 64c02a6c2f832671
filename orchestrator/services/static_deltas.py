"""``wave target static-deltas``: which deltas bring the devices of a tag to a version, as ``fioctl`` would say it.

What it says more: pairs are commits and not versions (two versions with one commit need one delta), devices on versions
that are no Targets any more get theirs as long as the repository has the commit, and who cannot get one is listed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.core.delta_plan import SHORTEST_BUILD
from orchestrator.errors import InvalidInput, NotFound
from orchestrator.services.commits import short
from orchestrator.services.delta_provider import DeltaEstimate, DeltaPair, DeltaRecord
from orchestrator.services.delta_views import DeltaState, state_of
from orchestrator.services.records import BuildJob, RunningCount
from orchestrator.services.store import Reading


@dataclass(frozen=True, slots=True)
class From:
    """Devices of one hardware id on one from commit. ``version`` None when neither they nor a Target say one;
    ``orphan``: no Target has this commit any more."""

    pair: DeltaPair
    hardware_id: str
    version: int | None
    devices: int
    orphan: bool


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for. ``newer``: devices on the version or a newer one; ``there``: devices on its very commit;
    ``unsaid``: devices that have not said what they run; ``without_target``: devices whose hardware id the version is
    not made for, by hardware id."""

    to_version: int
    tag: str | None
    hardware_id: str | None
    froms: tuple[From, ...]
    there: int
    newer: int
    unsaid: tuple[RunningCount, ...]
    without_target: Mapping[str, int]

    @property
    def pairs(self) -> list[DeltaPair]:
        return sorted({item.pair for item in self.froms}, key=lambda pair: (pair.from_commit or "", pair.to_commit))

    @property
    def commits(self) -> list[str | None]:
        return [commit for pair in self.pairs for commit in (pair.from_commit, pair.to_commit)]


@dataclass(frozen=True, slots=True)
class StaticDelta:
    """One delta of the plan. ``versions``: what its devices call the from commit, newest first (empty: nothing is
    known); ``bytes`` and ``seconds`` are estimates until it is ready; ``saved``: bytes a device saves by it."""

    pair: DeltaPair
    versions: tuple[int, ...]
    hardware_ids: tuple[str, ...]
    devices: int
    orphan: bool
    state: DeltaState
    bytes: int
    saved: int
    seconds: float

    @property
    def label(self) -> str:
        return str(self.versions[0]) if self.versions else short(self.pair.from_commit)

    @property
    def weight(self) -> float:
        return max(self.devices, 1) * max(self.saved, 1) / max(self.seconds, SHORTEST_BUILD)


@dataclass(frozen=True, slots=True)
class StaticDeltaPlan:
    """The answer. ``items`` can be built or are there; ``unknown``: devices on commits that the repository does not
    have, or that have not said theirs: they are served whole."""

    to_version: int
    tag: str | None
    hardware_id: str | None
    items: tuple[StaticDelta, ...]
    unknown: tuple[RunningCount, ...]
    there: int
    newer: int
    without_target: Mapping[str, int]

    @property
    def heading(self) -> str:
        """What stands above the lines, after ``Dry run: ``."""
        if self.hardware_id is not None:
            return f"Would generate static deltas for Targets with hardware ID {self.hardware_id} and versions:"
        return "Would generate static deltas for Target versions:"

    @property
    def lines(self) -> tuple[str, ...]:
        """``   5 -> 9``, each once, by version; without a version the beginning of the commit, last."""
        return tuple(f"   {label} -> {self.to_version}" for label in self.devices_by_line)

    @property
    def devices_by_line(self) -> Mapping[str, int]:
        """How many devices each line serves, in the order of the lines."""
        found: dict[str, int] = defaultdict(int)
        for item in sorted(self.items, key=_order):
            found[item.label] += item.devices
        return dict(found)


def wanted(
    r: Reading, version: int, *, tag: str | None, from_versions: Sequence[int], hardware_id: str | None
) -> Wanted:
    """Who would need a delta to this version. Raises NotFound for a version or tag nobody knows or when nobody needs
    one, InvalidInput for a from version that is not older."""
    for before in from_versions:
        if before >= version:
            raise InvalidInput(
                f"from-version {before} is newer than to-version {version}."
                if before > version
                else f"from-version {before} is the to-version itself.",
                remedy="Deltas are made from older versions to newer ones here; `wave delta build FROM TO` makes any.",
            )
    to = {
        of: target.commit
        for target in r.targets(version=version)
        for of in target.hardware_ids
        if hardware_id is None or of == hardware_id
    }
    if not to:
        for_hardware = f" for hardware id {hardware_id}" if hardware_id else ""
        raise NotFound(
            f"There is no Target of version {version}{for_hardware}.", remedy="`wave target list` shows what there is."
        )
    counts = list(_of_tag(r, tag)) if tag is not None else []
    collected = _Collected(r, version, to, only=hardware_id)
    for count in counts:
        collected.add(count)
    collected.add_versions(from_versions)
    if not collected.froms and not collected.unsaid:
        raise NotFound(
            "No Targets found to generate deltas for.",
            remedy=_why_none(collected, version, tag, from_versions),
        )
    return Wanted(
        version,
        tag,
        hardware_id,
        tuple(collected.froms),
        collected.there,
        collected.newer,
        tuple(collected.unsaid),
        dict(collected.without_target),
    )


def static_delta_plan(
    asked: Wanted,
    has_commit: Mapping[str, bool],
    ready: Mapping[DeltaPair, DeltaRecord],
    jobs: Mapping[DeltaPair, BuildJob | None],
    costs: Mapping[DeltaPair, DeltaEstimate],
) -> StaticDeltaPlan:
    """What is wanted, with what is there and what it costs. Pure."""
    items, unknown = [], list(asked.unsaid)
    for pair in asked.pairs:
        group = [item for item in asked.froms if item.pair == pair]
        if pair.from_commit is None or not has_commit.get(pair.from_commit) or not has_commit.get(pair.to_commit):
            unknown += [RunningCount(item.hardware_id, pair.from_commit, item.version, item.devices) for item in group]
            continue
        record, cost = ready.get(pair), costs.get(pair)
        items.append(
            StaticDelta(
                pair=pair,
                versions=tuple(sorted({item.version for item in group if item.version is not None}, reverse=True)),
                hardware_ids=tuple(sorted({item.hardware_id for item in group})),
                devices=sum(item.devices for item in group),
                orphan=all(item.orphan for item in group),
                state=state_of(record, jobs.get(pair)),
                bytes=record.bytes + record.fallback_bytes if record else cost.likely_bytes if cost else 0,
                saved=cost.at_most_bytes - cost.likely_bytes if cost else 0,
                seconds=cost.build_seconds if cost else 0.0,
            )
        )
    return StaticDeltaPlan(
        asked.to_version,
        asked.tag,
        asked.hardware_id,
        tuple(sorted(items, key=_order)),
        tuple(unknown),
        asked.there,
        asked.newer,
        asked.without_target,
    )


class _Collected:
    """Devices sorted by what a version has for them."""

    def __init__(self, r: Reading, version: int, to: Mapping[str, str], *, only: str | None) -> None:
        self._reading = r
        self._version = version
        self._to = to
        self._only = only
        self._commits: dict[tuple[str, int], str] = {}
        self._with_target: set[str] = set()
        for target in r.targets():
            self._with_target.add(target.commit)
            for hardware_id in target.hardware_ids:
                self._commits[hardware_id, target.version] = target.commit
        self.froms: list[From] = []
        self.unsaid: list[RunningCount] = []
        self.without_target: dict[str, int] = defaultdict(int)
        self.there = 0
        self.newer = 0

    def add(self, count: RunningCount) -> None:
        to_commit = self._to.get(count.hardware_id)
        if to_commit is None:
            if self._only is None:
                self.without_target[count.hardware_id] += count.devices
            return
        commit, version = count.commit, count.version
        if commit is None and version is not None:
            commit = self._commits.get((count.hardware_id, version))
        if commit == to_commit:
            self.there += count.devices
            return
        if version is None and commit is not None:
            version = self._reading.known_version(count.hardware_id, commit)
        if version is not None and version >= self._version:
            self.newer += count.devices
        elif commit is None:
            self.unsaid.append(count)
        else:
            self._from(commit, count.hardware_id, version, count.devices)

    def add_versions(self, versions: Sequence[int]) -> None:
        """From versions that were named. Raises NotFound for one that has no Target for any hardware id in question."""
        running = {(item.pair.from_commit, item.hardware_id) for item in self.froms}
        for version in dict.fromkeys(versions):
            commits = {of: self._commits[of, version] for of in self._to if (of, version) in self._commits}
            if not commits:
                raise NotFound(
                    f"There is no Target of version {version} to generate a delta from.",
                    remedy="`wave target list` shows what there is.",
                )
            for hardware_id, commit in commits.items():
                if (commit, hardware_id) in running:
                    continue
                if commit == self._to[hardware_id]:
                    continue
                devices = sum(
                    count.devices
                    for count in self._reading.running()
                    if (count.commit, count.hardware_id) == (commit, hardware_id)
                )
                self._from(commit, hardware_id, version, devices)

    def _from(self, commit: str, hardware_id: str, version: int | None, devices: int) -> None:
        orphan = commit not in self._with_target
        self.froms.append(From(DeltaPair(commit, self._to[hardware_id]), hardware_id, version, devices, orphan))


def _of_tag(r: Reading, tag: str) -> Sequence[RunningCount]:
    tags = r.tags()
    if tag not in tags and not r.targets(tag=tag):
        followed = ", ".join(sorted(tags)[:8])
        remedy = f"Devices follow {followed}." if followed else "No device is enrolled yet: `wave device enroll`."
        raise NotFound(f"No tags named '{tag}' found.", remedy=remedy)
    return r.running(tag=tag)


def _why_none(collected: _Collected, version: int, tag: str | None, from_versions: Sequence[int]) -> str:
    if tag is None and not from_versions:
        return "Name a tag with --by-tag, or the versions to start from."
    if collected.without_target and not collected.there + collected.newer:
        return f"Version {version} is not made for {', '.join(sorted(collected.without_target))}."
    if collected.there + collected.newer:
        return f"All {collected.there + collected.newer} devices run version {version} or a newer one already."
    return f"No active device follows {tag}." if tag else "The versions have the same commit."


def _order(item: StaticDelta) -> tuple[bool, int, str]:
    return not item.versions, item.versions[0] if item.versions else 0, item.pair.from_commit or ""
