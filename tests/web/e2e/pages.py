"""Every page of the console on the installation of ``tests.web.scenes``, and how each is looked at."""

from __future__ import annotations

from typing import Final, NamedTuple

PAGES: Final = {
    "rollouts": "/rollouts",
    "rollouts-halted": "/rollouts?status=halted",
    "rollouts-none": "/rollouts?status=scheduled",
    "rollout": "/rollouts/lmp-42",
    "rollout-halted": "/rollouts/beta-43",
    "rollout-gates": "/rollouts/edge-42",
    "rollout-held": "/rollouts/signs-42",
    "rollout-completed": "/rollouts/kiosk-42",
    "rollout-draft": "/rollouts/depot-42",
    "rollout-builds": "/rollouts/carts-44",
    "journal": "/rollouts/lmp-42/journal",
    "fleet": "/fleet",
    "devices": "/devices?begins=gw-00",
    "devices-none": "/devices?begins=nobody",
    "group": "/groups/lab",
    "device": "/devices/gw-0013",
    "device-failed": "/devices/{failed}",
    "device-odd": "/devices/gw-0007",
    "deltas": "/deltas",
    "policies": "/policies",
    "words": "/words",
    "policy": "/policies/standard",
}
"""By the name of its picture; ``{failed}`` is a device that failed."""

ORDERS: Final = {
    "start": "/rollouts/depot-42/order/start",
    "start-refused": "/rollouts/lmp-44/order/start",
    "pause": "/rollouts/lmp-42/order/pause",
    "resume": "/rollouts/beta-43/order/resume",
    "promote": "/rollouts/lmp-42/order/promote",
    "complete": "/rollouts/lmp-42/order/complete",
    "halt": "/rollouts/lmp-42/order/halt",
    "cancel": "/rollouts/lmp-42/order/cancel",
    "exclude": "/rollouts/lmp-42/order/exclude",
    "approve": "/rollouts/tills-42/order/approve",
    "skip": "/rollouts/lmp-42/order/skip",
}

ALL: Final = {**PAGES, **{f"order-{name}": path for name, path in ORDERS.items()}}


def all_pages(failed: str) -> dict[str, str]:
    return {name: path.format(failed=failed) for name, path in ALL.items()}


TROUBLE: Final = {"not-found": ("/rollouts/nobody", 404)}
"""Pages that say what is wrong, with their status."""

DOOR: Final = {"sign-in": "/sign-in?next=%2Ffleet"}
"""For who is not signed in."""


class View(NamedTuple):
    """A screen in pixels, and its scheme."""

    width: int
    height: int
    dark: bool = False

    @property
    def name(self) -> str:
        return f"{self.width}-{'dark' if self.dark else 'light'}"

    def in_the_dark(self) -> View:
        return self._replace(dark=True)


DESK: Final = View(1440, 900)
PHONE: Final = View(390, 844)
