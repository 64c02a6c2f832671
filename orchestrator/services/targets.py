"""Targets: adding, listing, tagging, and taking them over from a Foundries ``targets.json``.

Nothing here offers anything to a device: a tag says which line a Target belongs to, only rollouts offer (RULES 7.1).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from orchestrator.core.artifact import FILES, Artifact
from orchestrator.core.fleet import Target, check_commit, check_name
from orchestrator.core.rollout_file import LARGEST_VERSION
from orchestrator.core.states import POLICY
from orchestrator.errors import ContentUnavailable, InvalidInput, NotFound, Refused, WaveError
from orchestrator.services.artifacts import hardware_of
from orchestrator.services.commits import resolve_commit, short
from orchestrator.services.delta_provider import DeltaProvider, DeltaRecord
from orchestrator.services.house_log import note
from orchestrator.services.records import RunningCount
from orchestrator.services.store import Store

LARGEST_DOCUMENT: Final = 64 * 1024 * 1024
"""Bytes of a ``targets.json`` that are read at most; the largest known factories have a few."""

MOST_TAGS: Final = 64
MOST_HARDWARE_IDS: Final = 64


class Import(StrEnum):
    """What became of one entry of a foreign file."""

    ADDED = "added"
    RETAGGED = "retagged"
    UNCHANGED = "unchanged"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Imported:
    """One entry of a foreign file. ``reason``: why it was skipped; ``name`` is shown as it stands there, shortened."""

    name: str
    what: Import
    version: int | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class TagChange:
    """Tags of one Target before and after."""

    name: str
    before: tuple[str, ...]
    after: tuple[str, ...]

    @property
    def line(self) -> str:
        return f"Changing tags of {self.name} from [{', '.join(self.before)}] -> [{', '.join(self.after)}]"


@dataclass(frozen=True, slots=True)
class TargetView:
    """A Target, who runs its commit, and the deltas that lead to it. ``from_versions``: versions of each delta's from
    commit, by that commit."""

    target: Target
    running: tuple[RunningCount, ...]
    deltas: tuple[DeltaRecord, ...]
    from_versions: Mapping[str, tuple[int, ...]]

    @property
    def devices(self) -> int:
        return sum(count.devices for count in self.running)


@dataclass(frozen=True, slots=True)
class Targets:
    """The use cases. ``clock`` gives aware UTC."""

    store: Store
    provider: DeltaProvider
    clock: Callable[[], datetime]

    def add(
        self,
        *,
        version: int,
        commit: str,
        hardware_ids: Sequence[str],
        tags: Sequence[str] = (),
        name: str | None = None,
        dry_run: bool = False,
        by: str = POLICY,
    ) -> tuple[Target, bool]:
        """Add one; whether it is new. ``commit`` is a commit, its first digits, or a ref of the repository.

        Without a name it is called after its hardware ids and version. Raises ContentUnavailable for a commit that the
        repository does not have, Refused when one of the hardware ids has another commit under this version already
        (RULES 6.3), InvalidInput for what cannot be a name.
        """
        found = self._commit(commit)
        with self.store.reading() as r:
            artifact = r.artifact(found)
        if artifact is not None:
            hardware_ids = hardware_of(artifact, hardware_ids)
        provider = self.provider.name if artifact is None else FILES
        return self._add(self._made(name, version, found, hardware_ids, tags, provider), by=by, dry_run=dry_run)

    def add_artifact(
        self,
        *,
        version: int,
        artifact: Artifact,
        hardware_ids: Sequence[str] = (),
        tags: Sequence[str] = (),
        name: str | None = None,
        dry_run: bool = False,
        by: str = POLICY,
    ) -> tuple[Target, bool]:
        """Add one that is a file: its commit is the file's sha256. Without hardware ids it is for those of the file.

        Raises NotFound when the artifact is not recorded, Refused when the file is for other hardware, else as ``add``.
        """
        target = self._made(name, version, artifact.sha256, hardware_of(artifact, hardware_ids), tags, FILES)
        return self._add(target, by=by, dry_run=dry_run)

    def _made(
        self,
        name: str | None,
        version: int,
        commit: str,
        hardware_ids: Sequence[str],
        tags: Sequence[str],
        provider: str,
    ) -> Target:
        target = Target(
            name=name if name is not None else f"{'-'.join(hardware_ids)}-{version}",
            version=_checked_version(version),
            commit=commit,
            hardware_ids=_checked_list(hardware_ids, "hardware id", MOST_HARDWARE_IDS),
            tags=_checked_list(tags, "tag", MOST_TAGS),
            provider=provider,
            added_at=self.clock(),
        )
        check_name(target.name, "Target name")
        return target

    def _add(self, target: Target, *, by: str, dry_run: bool) -> tuple[Target, bool]:
        if not target.hardware_ids:
            raise InvalidInput("A Target needs a hardware id.", remedy="Name the boards it is made for.")
        with self.store.reading() as r:
            existing = r.targets()
        if (problem := _conflict(target, existing)) is not None:
            raise problem
        same = next((known for known in existing if known.name == target.name), None)
        if dry_run:
            return target, same is None
        with self.store.writing() as w:
            if target.provider == FILES and w.artifact(target.commit) is None:
                raise NotFound(
                    f"The artifact {short(target.commit)} was removed meanwhile.", remedy="Add the file again."
                )
            now = self.clock()
            new = w.add_target(target, now=now)
            if new:
                note(w, now, "target_added", target.name, f"added Target {target.name}{_tagged(target.tags)}", by=by)
        return target, new

    def list(self, *, version: int | None = None, tag: str | None = None) -> Sequence[Target]:
        """Newest version first, then by name."""
        with self.store.reading() as r:
            return r.targets(version=version, tag=tag)

    def show(self, which: str) -> Sequence[TargetView]:
        """The Target of that name, or all of that version, by name. Raises NotFound."""
        with self.store.reading() as r:
            found = _named(r.targets(), which)
            running, records = r.running(), r.deltas()
            versions: dict[str, set[int]] = {}
            for target in r.targets():
                versions.setdefault(target.commit, set()).add(target.version)
        views = []
        for target in found:
            leading = tuple(record for record in records if record.pair.to_commit == target.commit)
            known = [commit for record in leading if (commit := record.pair.from_commit) in versions and commit]
            views.append(
                TargetView(
                    target,
                    tuple(c for c in running if c.commit == target.commit and c.hardware_id in target.hardware_ids),
                    leading,
                    {commit: tuple(sorted(versions[commit], reverse=True)) for commit in known},
                )
            )
        return views

    def tag(
        self,
        which: Sequence[str],
        tags: Sequence[str],
        *,
        append: bool = False,
        by_version: bool = False,
        dry_run: bool = False,
        by: str = POLICY,
    ) -> Sequence[TagChange]:
        """Give Targets these tags, or with ``append`` these as well. ``which``: names, or versions with ``by_version``.

        Offers nothing to anybody. All or nothing: raises NotFound for a name or version nobody knows, InvalidInput for
        what cannot be a tag.
        """
        wanted = _checked_list(tags, "tag", MOST_TAGS)
        with self.store.writing() as w:
            everything = w.targets()
            chosen: dict[str, Target] = {}
            for each in which:
                for target in _named(everything, each, only_versions=by_version, only_names=not by_version):
                    chosen[target.name] = target
            changes = []
            for target in chosen.values():
                after = tuple(dict.fromkeys([*target.tags, *wanted])) if append else wanted
                if len(after) > MOST_TAGS:
                    raise InvalidInput(f"{target.name} would have {len(after)} tags; {MOST_TAGS} are allowed.")
                changes.append(TagChange(target.name, target.tags, after))
                if not dry_run and set(after) != set(target.tags):
                    w.tag_target(target.name, after)
                    note(w, self.clock(), "target_tagged", target.name, f"tagged {target.name}{_tagged(after)}", by=by)
        return changes

    def import_foundries(self, document: bytes, *, dry_run: bool = False, by: str = POLICY) -> Sequence[Imported]:
        """Take over the OSTree Targets of a Foundries ``targets.json``: a signed envelope, its ``signed`` part, or the
        bare mapping of the REST API. Signatures are not checked: the file is as good as where it came from.

        An entry that cannot be taken is skipped with its reason and hinders no other; names from the file are only
        ever compared and shown. Tags follow the file. Raises InvalidInput when it is no such file at all.
        """
        entries = _foundries_targets(document)
        refs_checked: dict[str, bool] = {}
        results: list[Imported] = []
        with self.store.reading() as r:
            existing = {target.name: target for target in r.targets()}
        accepted: list[tuple[Target, Import]] = []
        for name, entry in entries.items():
            try:
                target = self._foundries_target(name, entry)
                if target.commit not in refs_checked:
                    refs_checked[target.commit] = self.provider.has_commit(target.commit)
                if not refs_checked[target.commit]:
                    raise InvalidInput(f"its commit {short(target.commit)} is not in the repository")
                known = existing.get(target.name)
                if (problem := _conflict(target, existing.values())) is not None:
                    raise problem
            except (InvalidInput, Refused) as problem:
                results.append(Imported(str(name)[:128], Import.SKIPPED, reason=problem.message))
                continue
            if known is None:
                what = Import.ADDED
            else:
                what = Import.UNCHANGED if set(known.tags) == set(target.tags) else Import.RETAGGED
            existing[target.name] = target
            accepted.append((target, what))
            results.append(Imported(target.name, what, target.version))
        if not dry_run:
            with self.store.writing() as w:
                for target, what in accepted:
                    match what:
                        case Import.ADDED:
                            w.add_target(target, now=self.clock())
                        case Import.RETAGGED:
                            w.tag_target(target.name, target.tags)
                        case _:
                            continue
                    deed = f"imported Target {target.name}{_tagged(target.tags)}"
                    note(w, self.clock(), "target_imported", target.name, deed, by=by)
        return results

    def _commit(self, text: str) -> str:
        refs = self.provider.refs()
        if text in refs:
            return refs[text]
        try:
            commit = text if len(text) == 64 else resolve_commit(self.store, self.provider, text)
        except NotFound as error:
            raise _not_there(text) from error
        if not self.provider.has_commit(check_commit(commit)):
            raise _not_there(commit)
        return commit

    def _foundries_target(self, name: str, entry: Any) -> Target:
        """One entry as a Target. Raises InvalidInput with the reason to skip it, a clause without a full stop."""
        if not isinstance(entry, Mapping) or not isinstance(entry.get("custom"), Mapping):
            raise InvalidInput("it has no custom part")
        custom, hashes = entry["custom"], entry.get("hashes")
        if custom.get("targetFormat") != "OSTREE":
            raise InvalidInput(f"its format is {_shown(custom.get('targetFormat'))}, not OSTREE")
        commit = hashes.get("sha256") if isinstance(hashes, Mapping) else None
        version, hardware_ids, tags = custom.get("version"), custom.get("hardwareIds"), custom.get("tags", [])
        if not isinstance(commit, str):
            raise InvalidInput("it has no sha256")
        if not (isinstance(version, str) and version.isascii() and version.isdecimal() and len(version) <= 16):
            raise InvalidInput(f"its version {_shown(version)} is no whole number")
        try:
            target = Target(
                name=check_name(name, "Target name"),
                version=_checked_version(int(version)),
                commit=check_commit(commit),
                hardware_ids=_checked_list(_texts(hardware_ids, "hardwareIds"), "hardware id", MOST_HARDWARE_IDS),
                tags=_checked_list(_texts(tags, "tags"), "tag", MOST_TAGS),
                provider=self.provider.name,
            )
        except WaveError as error:
            raise InvalidInput(error.message.rstrip(".")) from error
        if not target.hardware_ids:
            raise InvalidInput("it has no hardware id")
        return replace(target, added_at=self.clock())


def _foundries_targets(document: bytes) -> Mapping[str, Any]:
    remedy = "Give the targets.json of a factory, as `fioctl targets list --raw` or its repository has it."
    if len(document) > LARGEST_DOCUMENT:
        raise InvalidInput(
            f"The file has {len(document)} bytes; {LARGEST_DOCUMENT} are read at most.",
            remedy="Prune its Targets first.",
        )
    try:
        parsed = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"The file is not JSON: {str(error)[:200]}.", remedy=remedy) from None
    if isinstance(parsed, Mapping):
        signed = parsed.get("signed", parsed)
        # the REST API answers with the bare mapping of names to entries
        targets = signed.get("targets", parsed if signed is parsed else None) if isinstance(signed, Mapping) else None
        if isinstance(targets, Mapping):
            return targets
    raise InvalidInput("The file has no targets.", remedy=remedy)


def _conflict(target: Target, existing: Iterable[Target]) -> Refused | None:
    """Why the Target cannot stand beside those that are there; None when it can, or is there already."""
    for known in existing:
        if known.name == target.name:
            same = (known.version, known.commit, set(known.hardware_ids))
            if same != (target.version, target.commit, set(target.hardware_ids)):
                return Refused(
                    f"{known.name} is version {known.version} with commit {short(known.commit)} for "
                    f"{', '.join(known.hardware_ids)} already.",
                    remedy="A Target never changes: take another name and version.",
                )
        elif known.version == target.version and known.commit != target.commit:
            both = sorted(set(known.hardware_ids) & set(target.hardware_ids))
            if both:
                return Refused(
                    f"Version {known.version} for {', '.join(both)} has the commit {short(known.commit)} "
                    f"({known.name}) already, not {short(target.commit)}.",
                    remedy="One version has one commit for a hardware id: take another version.",
                )
    return None


def _named(
    targets: Iterable[Target], which: str, *, only_versions: bool = False, only_names: bool = False
) -> Sequence[Target]:
    """Targets of that name, else of that version. Raises NotFound."""
    everything = tuple(targets)
    found: Sequence[Target] = ()
    if not only_versions:
        found = [target for target in everything if target.name == which]
    if not found and not only_names and which.isascii() and which.isdecimal():
        found = [target for target in everything if str(target.version) == which.lstrip("0")]
    if not found:
        kind = "version" if only_versions else "Target"
        raise NotFound(f"There is no {kind} {which[:128]!r}.", remedy="`wave target list` shows what there is.")
    return found


def _tagged(tags: Sequence[str]) -> str:
    return f", tags {', '.join(tags)}" if tags else ", without a tag"


def _not_there(commit: str) -> ContentUnavailable:
    return ContentUnavailable(
        f"The commit {commit[:128]!r} is not in the repository.",
        remedy="Push it first (`ostree pull-local`), or give one of its refs (`ostree refs`).",
    )


def _checked_version(version: int) -> int:
    if not 1 <= version <= LARGEST_VERSION:
        raise InvalidInput(f"{version} cannot be a version: it is a whole number from 1 to {LARGEST_VERSION}.")
    return version


def _checked_list(names: Sequence[str], what: str, most: int) -> tuple[str, ...]:
    """Each once, in their order. Raises InvalidInput."""
    found = tuple(dict.fromkeys(check_name(name, what) for name in names))
    if len(found) > most:
        raise InvalidInput(f"{len(found)} {what}s are too many; {most} are allowed.")
    return found


def _texts(value: Any, key: str) -> Sequence[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidInput(f"its {key} are no list of texts")
    return value


def _shown(value: object) -> str:
    return repr(value)[:40]
