"""What people call a commit: a version, a Target's name, a ref, or the first digits of the commit itself."""

from __future__ import annotations

import re
from typing import Final

from orchestrator.core.rollout_file import LARGEST_VERSION
from orchestrator.errors import NotFound, Refused
from orchestrator.services.delta_provider import DeltaPair, DeltaProvider
from orchestrator.services.store import Reading, Store

SHORT: Final = 12
"""Digits of a commit that are shown to people."""

FEWEST_DIGITS: Final = 6
_PREFIX: Final = re.compile(rf"[0-9a-fA-F]{{{FEWEST_DIGITS},64}}")
_MOST_CANDIDATES: Final = 8


def short(commit: str | None) -> str:
    """A commit as people see it; ``nothing`` for None, where a delta is from scratch."""
    return commit[:SHORT] if commit else "nothing"


def pair_text(pair: DeltaPair) -> str:
    return f"{short(pair.from_commit)} -> {short(pair.to_commit)}"


def resolve_commit(store: Store, provider: DeltaProvider, text: str, *, hardware_id: str | None = None) -> str:
    """The one commit that ``text`` stands for.

    ``hardware_id`` narrows versions. Raises NotFound, and Refused with the candidates when several commits fit: nothing
    is guessed.
    """
    text = text.strip()
    with store.reading() as r:
        found = _among_targets(r, text, hardware_id)
    refs = provider.refs()
    if text in refs:
        found.setdefault(refs[text], f"ref {text}")
    if _PREFIX.fullmatch(text):
        prefix = text.lower()
        for record in provider.commits():
            if record.commit.startswith(prefix):
                found.setdefault(record.commit, ", ".join(record.refs) or record.subject or "in the repository")
        if len(prefix) == 64 and prefix not in found and provider.has_commit(prefix):
            found[prefix] = "in the repository"
    if not found:
        for_hardware = f" for hardware id {hardware_id}" if hardware_id else ""
        raise NotFound(
            f"{text[:80]!r} is no version, Target, ref or commit that is known here{for_hardware}.",
            remedy=f"`wave target list` shows what there is; of a commit give at least {FEWEST_DIGITS} digits.",
        )
    if len(found) > 1:
        shown = [f"{short(commit)} ({label})" for commit, label in sorted(found.items())]
        more = f" and {len(shown) - _MOST_CANDIDATES} more" if len(shown) > _MOST_CANDIDATES else ""
        raise Refused(
            f"{text[:80]!r} may be {len(found)} commits: {', '.join(shown[:_MOST_CANDIDATES])}{more}.",
            remedy="Give more digits of the commit, or the hardware id.",
        )
    return next(iter(found))


def _among_targets(r: Reading, text: str, hardware_id: str | None) -> dict[str, str]:
    """Commits of Targets that ``text`` may mean, with what to call each."""
    version = int(text) if text.isascii() and text.isdecimal() and len(text) <= 16 else None
    prefix = text.lower() if _PREFIX.fullmatch(text) else None
    found: dict[str, str] = {}
    for target in r.targets():
        if hardware_id is not None and hardware_id not in target.hardware_ids:
            continue
        by_version = version is not None and version <= LARGEST_VERSION and target.version == version
        if by_version or target.name == text or (prefix is not None and target.commit.startswith(prefix)):
            found.setdefault(target.commit, f"{target.name}, {'+'.join(target.hardware_ids)}")
    return found
