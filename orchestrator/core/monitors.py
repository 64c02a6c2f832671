"""What a decision sees of a monitor, from what was counted in it and from the slices opened so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.core.admission import calmed_by, confirmed_since
from orchestrator.core.evidence.allowance import MonitorSpec
from orchestrator.core.evidence.limits import staircase
from orchestrator.core.facts import MonitorFacts, SliceFacts, places_since


def monitor_facts(
    spec: MonitorSpec,
    *,
    bad: int,
    crossed_at: tuple[int, int] | None,
    opened: Sequence[tuple[str, SliceFacts]],
    segments: Mapping[str, int],
    from_place: int = 0,
    accepted: bool = False,
) -> MonitorFacts:
    """The facts of one monitor that has counted so many ``bad``, with its first crossing, and began after
    ``from_place``.

    ``opened``: the slices in the order of their opening, with their waves; ``segments``: the places given in each
    segment. Of a segment nobody counts who has confirmed: there all who have a place calm.
    """
    stairs = staircase(spec.tolerance, spec.alpha)
    if spec.segment is not None:
        places = max(0, segments.get(spec.segment, 0) - from_place)
        calm = max(places, bad)
    else:
        own = spec.wave
        mine = [piece for wave, piece in opened if own is None or wave == own]
        places = places_since(from_place, mine)
        calm = calmed_by(places, bad, confirmed_since(from_place, mine))
    return MonitorFacts(
        segment=spec.segment,
        devices=spec.devices,
        monitor=spec.key,
        outcomes=spec.outcomes,
        wave=spec.wave,
        tolerance=spec.tolerance,
        alpha=spec.alpha,
        answer=spec.answer,
        places=places,
        bad=bad,
        next_limit=stairs.limit(bad + 1),
        crossed_at=crossed_at,
        accepted=accepted,
        amber=stairs.amber(calm, bad),
    )
