"""Every family of ``/metrics``: its name, what it is and its labels. ``docs/metrics.md`` is drawn from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True, slots=True)
class Family:
    """One family. A counter's name is shown with ``_total`` behind it. ``about``: the part of the page it stands in."""

    name: str
    kind: Literal["gauge", "counter"]
    says: str
    labels: tuple[str, ...] = ()
    about: str = ""

    @property
    def shown(self) -> str:
        return f"{self.name}_total" if self.kind == "counter" else self.name


FAMILIES: Final[list[Family]] = []


def _gauge(name: str, says: str, *labels: str) -> Family:
    return _add(Family(name, "gauge", says, labels, _about))


def _counter(name: str, says: str, *labels: str) -> Family:
    return _add(Family(name, "counter", says, labels, _about))


def _add(family: Family) -> Family:
    FAMILIES.append(family)
    return family


_about = "Rollouts"

ROLLOUT_STATUS: Final = _gauge("wave_rollout_status", "1 for the status the rollout has.", "rollout", "tag", "status")
ROLLOUT_SINCE: Final = _gauge("wave_rollout_status_since_seconds", "Since when it has it, as Unix time.", "rollout")
ROLLOUT_TARGET: Final = _gauge("wave_rollout_target_version", "The version it brings.", "rollout")
ROLLOUT_DEVICES: Final = _gauge("wave_rollout_devices", "Eligible devices when it started.", "rollout")
ROLLOUTS_LEFT_OUT: Final = _gauge(
    "wave_rollouts_left_out", "Rollouts that offer or may offer and are not measured here, because they are too many."
)
FROZEN: Final = _gauge("wave_frozen", "1 while all offers of all rollouts are stopped by `wave freeze`.")

_about = "Waves"

WAVE_STATUS: Final = _gauge("wave_status", "1 for the status the wave has.", "rollout", "wave", "status")
WAVE_HELD: Final = _gauge("wave_held", "1 while the wave waits for a person.", "rollout", "wave")
WAVE_AWAITED: Final = _gauge(
    "wave_awaited", "1 while the wave waits for a person's word, to promote or to approve it.", "rollout", "wave"
)
MEMBERS: Final = _gauge("wave_members", "Devices with a place in a slice that was opened.", "rollout", "wave")
WAITING: Final = _gauge("wave_waiting", "Devices left for later slices when the last one opened.", "rollout", "wave")
ADMITTED: Final = _gauge("wave_admitted", "Devices that were given the offer.", "rollout", "wave")
IN_FLIGHT: Final = _gauge("wave_in_flight", "Devices with the offer and no outcome yet.", "rollout", "wave")
CONFIRMED: Final = _gauge("wave_confirmed", "Devices that run the Target and said so.", "rollout", "wave")
FAILED: Final = _gauge(
    "wave_failed", "Devices with a bad outcome of a class; one may have several.", "rollout", "wave", "outcome"
)
DELTAS_REQUIRED: Final = _gauge("wave_deltas_required", "Deltas that the wave's devices need.", "rollout", "wave")
DELTAS_READY: Final = _gauge("wave_deltas_ready", "Those that are there and checked.", "rollout", "wave")
DELTAS_FAILED: Final = _gauge("wave_deltas_failed", "Those that could not be built.", "rollout", "wave")
DELTAS_COVERED: Final = _gauge(
    "wave_deltas_covered_ratio", "The part of the devices that need one whose delta is ready.", "rollout", "wave"
)

_about = "Monitors and budgets"

MONITOR_PLACES: Final = _gauge("wave_monitor_places", "Places given in what it watches.", "rollout", "monitor")
MONITOR_BAD: Final = _gauge("wave_monitor_bad", "Bad devices among them.", "rollout", "monitor")
MONITOR_EVIDENCE: Final = _gauge(
    "wave_monitor_evidence_ratio",
    "Of the evidence at which it acts the part it has, in logarithms: 0 nothing, 1 it acts.",
    "rollout",
    "monitor",
)
MONITOR_MARGIN: Final = _gauge(
    "wave_monitor_margin_devices",
    "How many more bad devices make it act, at the worst places; 0 once it has.",
    "rollout",
    "monitor",
)
MONITOR_LIMIT: Final = _gauge(
    "wave_monitor_next_limit",
    "One more bad device makes it act if all are among so many first places; 0: not even then.",
    "rollout",
    "monitor",
)
MONITOR_AMBER: Final = _gauge(
    "wave_monitor_amber", "1 while it slows offers down: a fifth of the evidence, or more.", "rollout", "monitor"
)
MONITOR_CROSSED: Final = _gauge(
    "wave_monitor_crossed", "1 once it has acted, until a person accepts that.", "rollout", "monitor"
)
BUDGET_LIMIT: Final = _gauge(
    "wave_budget_limit_devices", "Bad devices of these classes that stop the rollout.", "rollout", "outcomes"
)
BUDGET_LEFT: Final = _gauge("wave_budget_left_devices", "How many of them are left.", "rollout", "outcomes")

_about = "Builds and the outbox"

BUILDS: Final = _gauge("wave_builds", "Builds of deltas by status, of the newest 10,000; `queued` wait.", "status")
EFFECTS: Final = _gauge("wave_outbox_effects", "Effects that wait to be carried out, up to 1,000.", "kind")
EFFECTS_FAILING: Final = _gauge("wave_outbox_failing", "Those of them that failed when they were tried last.")

_about = "Messages to people"

MESSAGES_WAITING: Final = _gauge("wave_messages_waiting", "Messages that wait to be sent, up to 10,000.")
MESSAGES_FAILING: Final = _gauge("wave_messages_failing", "Those of them whose last try failed; they are tried again.")
MESSAGES_DEAD: Final = _gauge(
    "wave_messages_dead", "Messages given up after a day, up to 10,000, until `wave notify retry` sends them."
)

_about = "The gateway"

CHECK_INS: Final = _counter("wave_check_ins", "Check-ins of devices that were let in.")
CHECK_INS_IDLE: Final = _counter("wave_check_ins_idle", "Those of them that were answered from memory.")
OFFERS: Final = _counter("wave_offers", "Offers given.")
EVENTS: Final = _counter("wave_reported_events", "Events that devices told: accepted, duplicate, refused.", "result")
NOT_LET_IN: Final = _counter("wave_devices_not_let_in", "Devices that are not known, or whose credential is wrong.")
REFUSED: Final = _counter(
    "wave_refused_requests", "Requests that were told an error, by door and by the kind that was told.", "door", "kind"
)
LIMITED: Final = _counter("wave_rate_limited_requests", "Requests that came too often, by which limit.", "limit")
IN_MEMORY: Final = _gauge("wave_devices_in_memory", "Devices remembered between their check-ins.")
WRITER_WAITING: Final = _gauge("wave_writer_waiting", "Weight of what waits to be written.")
WRITER_MOST: Final = _gauge("wave_writer_waiting_limit", "The weight from which on devices are told 503.")
WRITER_ALIVE: Final = _gauge("wave_writer_alive", "1 while what is handed in now will be written.")
WRITER_BATCHES: Final = _counter("wave_writer_batches", "Transactions of the writer that committed.")
WRITER_ITEMS: Final = _counter("wave_writer_items", "What was written in them.")
PRESSURE: Final = _gauge(
    "wave_pressure_ratio", "How far the interval of check-ins is stretched: 0 not at all, 1 as far as it may be."
)
LATE: Final = _counter(
    "wave_event_loop_late_seconds", "By how much in all the gateway's event loop got late to its work."
)

_about = "The tick, the store, the process"

TICKS: Final = _counter("wave_ticks", "Ticks: done, elsewhere (another process has the lease), failed.", "result")
TICK_AT: Final = _gauge("wave_tick_last_timestamp_seconds", "When the last tick of this process began, as Unix time.")
TICK_SECONDS: Final = _gauge("wave_tick_last_seconds", "How long it took.")
TICK_DECISIONS: Final = _counter("wave_tick_decisions", "Decisions that ticks carried out.")
TICK_PROBLEMS: Final = _gauge("wave_tick_problems", "Rollouts in which the last tick met a problem.")
STORE_UP: Final = _gauge("wave_store_up", "1 when the store could be read for this scrape.")
STORE_ERRORS: Final = _counter("wave_store_errors", "Sessions of the store that ended in an error.", "kind")
OPERATORS: Final = _counter("wave_operators_requests", "Requests of the operators' side, by status.", "code")
VERSION: Final = _gauge("wave_build_info", "1, with the version of the program.", "version")
