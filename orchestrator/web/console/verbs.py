"""What a person may order from the console: when each order is offered, what it asks for, and what it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from orchestrator.core.roles import Role, may
from orchestrator.core.rules import Rules
from orchestrator.core.states import LIVE_ROLLOUT, ReasonKind, RolloutStatus, WaveStatus
from orchestrator.services.foreseeing import Foreseen
from orchestrator.services.people import Person
from orchestrator.services.rollouts import Ordered, Rollouts
from orchestrator.services.views import RolloutView

_R = RolloutStatus
_W = WaveStatus


@dataclass(frozen=True, slots=True)
class Order:
    """What was chosen on the form. ``wave`` and ``segment`` '' stand for none; ``accept``: what stopped it, by name;
    ``files``: as they were when the form was shown."""

    reason: str = ""
    wave: str = ""
    segment: str = ""
    accept: tuple[str, ...] = ()
    at_once: bool = False
    files: str = ""


@dataclass(frozen=True, slots=True)
class Verb:
    """An order. ``sentence``: what it means, before anything is looked up; ``statuses``: of rollouts it is offered for;
    ``roles``: of which one is needed; ``waves``: the statuses of waves it can be given for, ``one_wave``: it needs one;
    ``grave``: what it does cannot be taken back, or stops devices from being served. ``foresee``: what it would do, of
    an order that must not be carried out only to see."""

    name: str
    title: str
    sentence: str
    statuses: frozenset[RolloutStatus]
    run: Callable[[Rollouts, str, str, Order, bool], Ordered]
    foresee: Callable[[Foreseen, str, str, Order], str] | None = None
    roles: frozenset[Role] = frozenset({Role.RELEASER})
    waves: frozenset[WaveStatus] = frozenset()
    one_wave: bool = False
    accepts: bool = False
    segments: bool = False
    grave: bool = False

    def deed(self, rollout: str, order: Order) -> str:
        """What the button that does it says: ``Cancel wave rest``, and no bare ``Cancel``, which may mean the form."""
        what = order.segment if self.segments else f"wave {order.wave}" if order.wave else rollout
        return f"{self.title.split()[0]} {what}".rstrip()

    def allowed(self, person: Person) -> bool:
        return any(may(person.roles, role) for role in self.roles)

    def waves_of(self, view: RolloutView) -> tuple[str, ...]:
        if view.summary.status not in (_R.RUNNING, _R.PAUSED, _R.HELD) and self.name != "approve":
            return ()
        return tuple(each.state.wave for each in view.waves if each.state.status in self.waves)

    def held_of(self, view: RolloutView) -> tuple[str, ...]:
        return tuple(each.state.wave for each in view.waves if each.state.hold is not None)


def _start(orders: Rollouts, name: str, by: str, order: Order, dry: bool) -> Ordered:
    return orders.start(name, by=by, reason=order.reason, dry_run=dry)


def _pause(orders: Rollouts, name: str, by: str, order: Order, dry: bool) -> Ordered:
    return orders.pause(name, by=by, reason=order.reason, dry_run=dry)


def _halt(orders: Rollouts, name: str, by: str, order: Order, dry: bool) -> Ordered:
    return orders.halt(name, by=by, reason=order.reason, dry_run=dry)


def _resume(orders: Rollouts, name: str, by: str, order: Order, dry: bool) -> Ordered:
    wave = order.wave or None
    return orders.resume(name, by=by, reason=_why(order, dry), accept=order.accept, wave=wave, dry_run=dry)


def _promote(orders: Rollouts, name: str, by: str, order: Order, dry: bool) -> Ordered:
    return orders.promote(name, order.wave, by=by, reason=order.reason, dry_run=dry)


def _approve(orders: Rollouts, name: str, by: str, order: Order, dry: bool) -> Ordered:
    wave = order.wave or None
    return orders.approve(name, by=by, wave=wave, reason=order.reason, files=order.files or None, dry_run=dry)


def _complete(orders: Rollouts, name: str, by: str, order: Order, dry: bool) -> Ordered:
    return orders.complete(
        name,
        by=by,
        reason=_why(order, dry),
        wave=order.wave or None,
        at_once=order.at_once,
        accept=order.accept,
        dry_run=dry,
    )


def _cancel(orders: Rollouts, name: str, by: str, order: Order, dry: bool) -> Ordered:
    return orders.cancel(name, by=by, reason=order.reason, wave=order.wave or None, dry_run=dry)


def _skip(orders: Rollouts, name: str, by: str, order: Order, dry: bool) -> Ordered:
    return orders.skip(name, order.wave, by=by, reason=order.reason, dry_run=dry)


def _foresee_start(foreseen: Foreseen, name: str, by: str, order: Order) -> str:
    return foreseen.start(name)


def _foresee_exclude(foreseen: Foreseen, name: str, by: str, order: Order) -> str:
    return foreseen.exclude(name, order.segment, by=by)


def _exclude(orders: Rollouts, name: str, by: str, order: Order, dry: bool) -> Ordered:
    return orders.exclude(name, order.segment, by=by, reason=_why(order, dry), dry_run=dry)


def _why(order: Order, dry: bool) -> str:
    """Some orders ask for a reason before they say what would be; it is given by the time they are done."""
    return order.reason or ("not given yet" if dry else "")


_STANDING: Final = frozenset({_W.PENDING, _W.PREPARING, _W.OPEN, _W.BAKING})

VERBS: Final[Mapping[str, Verb]] = {
    each.name: each
    for each in (
        Verb(
            "start",
            "Start",
            "The rollout begins: its first waves are prepared and opened.",
            frozenset({_R.DRAFT}),
            _start,
            _foresee_start,
        ),
        Verb(
            "resume",
            "Resume",
            "It goes on. What stopped it must be accepted by name, and is counted anew from then on.",
            frozenset({_R.PAUSED, _R.HELD, _R.HALTED}),
            _resume,
            accepts=True,
        ),
        Verb(
            "promote",
            "Promote",
            "A wave that waits for a person opens as soon as all else allows it.",
            frozenset({_R.RUNNING, _R.PAUSED, _R.HELD}),
            _promote,
            waves=frozenset({_W.PENDING, _W.PREPARING}),
            one_wave=True,
        ),
        Verb(
            "approve",
            "Approve",
            "The word of a second person, where the policy asks for it: never of who wrote or started it.",
            frozenset({_R.DRAFT, _R.SCHEDULED, _R.RUNNING, _R.PAUSED, _R.HELD, _R.HALTED}),
            _approve,
            roles=frozenset({Role.APPROVER}),
            waves=frozenset({_W.PENDING, _W.PREPARING}),
        ),
        Verb(
            "pause",
            "Pause",
            "No new offer, nothing opens; devices that have started may finish.",
            frozenset({_R.RUNNING}),
            _pause,
        ),
        Verb(
            "complete",
            "Complete",
            "Every eligible device may be offered the Target now; or one wave passes on your word.",
            frozenset({_R.RUNNING, _R.PAUSED, _R.HELD, _R.HALTED}),
            _complete,
            waves=_STANDING | {_W.FAILED},
            accepts=True,
            grave=True,
        ),
        Verb(
            "exclude",
            "Exclude a segment",
            "Devices of one kind are offered nothing more; the rest goes on without them.",
            frozenset({_R.RUNNING, _R.PAUSED, _R.HELD, _R.HALTED}),
            _exclude,
            _foresee_exclude,
            segments=True,
        ),
        Verb(
            "skip",
            "Skip a wave",
            "What comes after the wave goes on without it.",
            frozenset({_R.RUNNING, _R.PAUSED, _R.HELD}),
            _skip,
            waves=frozenset({_W.PENDING, _W.PREPARING, _W.CANCELLED, _W.FAILED}),
            one_wave=True,
        ),
        Verb(
            "cancel",
            "Cancel",
            "It ends early, or one wave of it does: offers not started are withdrawn, updated devices stay.",
            frozenset(LIVE_ROLLOUT | {_R.DRAFT, _R.COMPLETED}),
            _cancel,
            waves=_STANDING | {_W.FAILED},
            grave=True,
        ),
        Verb(
            "halt",
            "Halt",
            "The safety stop: nothing more is offered, and offers whose device has not started are withdrawn.",
            frozenset({_R.RUNNING, _R.HELD, _R.PAUSED, _R.COMPLETED}),
            _halt,
            grave=True,
        ),
    )
}


def offered(view: RolloutView, rules: Rules) -> Sequence[Verb]:
    """The orders that this rollout can be given now."""
    status = view.summary.status
    found = []
    for verb in VERBS.values():
        fits = status in verb.statuses or (verb.name == "resume" and bool(verb.held_of(view)))
        if verb.name == "approve" and not _approval_asked(view, rules):
            continue
        if fits and not (verb.one_wave and not _choices(verb, view)):
            found.append(verb)
    return found


def awaited(view: RolloutView, verbs: Sequence[Verb]) -> str:
    """The name of the order that it stands still for; '' where it needs nobody."""
    names = [verb.name for verb in verbs]
    kinds = {reason.kind for wave in view.waves for reason, _ in wave.waiting} | {
        reason.kind for reason, _ in view.waiting
    }
    for name, waits in (
        ("approve", ReasonKind.AWAITING_APPROVAL in kinds),
        ("start", True),
        ("resume", True),
        ("promote", ReasonKind.AWAITING_PROMOTION in kinds),
    ):
        if name in names and waits:
            return name
    return ""


def _approval_asked(view: RolloutView, rules: Rules) -> bool:
    if view.summary.status is _R.HALTED:
        return rules.approve_resume > 0
    not_opened = {each.state.wave for each in view.waves if each.state.status in (_W.PENDING, _W.PREPARING)}
    return rules.approve_start > 0 or any(each.approvals and each.wave in not_opened for each in rules.waves)


def _choices(verb: Verb, view: RolloutView) -> tuple[str, ...]:
    if verb.name == "promote":
        return tuple(each for each in verb.waves_of(view) if not _wave_promoted(view, each))
    return verb.waves_of(view)


def _wave_promoted(view: RolloutView, name: str) -> bool:
    return any(each.state.wave == name and each.state.promoted for each in view.waves)


def choices(verb: Verb, view: RolloutView) -> tuple[str, ...]:
    """Waves that the order can be given for."""
    if verb.name == "resume":
        return verb.held_of(view) if view.summary.status in (_R.RUNNING, _R.COMPLETED) else ()
    return _choices(verb, view)
