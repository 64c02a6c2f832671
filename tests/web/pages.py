"""Every page of the console, as paths into the installation of ``believable`` after ``releases``."""

from __future__ import annotations

PAGES = (
    "/",
    "/sign-in",
    "/sign-in?next=/fleet",
    "/rollouts",
    "/rollouts?status=completed",
    "/rollouts?offset=5",
    "/rollouts/lmp-42",
    "/rollouts/lmp-44",
    "/rollouts/beta-43",
    "/rollouts/line-00-51",
    "/rollouts/lmp-42/journal",
    "/rollouts/lmp-42/journal?before=3",
    "/rollouts/lmp-44/order/start",
    "/rollouts/beta-43/order/resume",
    "/rollouts/lmp-42/order/promote?wave=rest",
    "/rollouts/lmp-42/order/approve",
    "/rollouts/lmp-42/order/pause",
    "/rollouts/lmp-42/order/complete",
    "/rollouts/lmp-42/order/complete?wave=emea",
    "/rollouts/lmp-42/order/exclude",
    "/rollouts/lmp-42/order/exclude?segment=hardware_id%3Dimx8",
    "/rollouts/lmp-42/order/skip?wave=rest",
    "/rollouts/lmp-42/order/cancel",
    "/rollouts/lmp-42/order/cancel?wave=emea",
    "/rollouts/lmp-42/order/halt",
    "/fleet",
    "/devices",
    "/devices?begins=copy-",
    "/devices?begins=copy-&after=copy-2",
    "/devices?begins=gw-0007",
    "/devices?begins=nobody",
    "/groups/lab",
    "/groups/lab?after=1000",
    "/devices/gw-0007",
    "/devices/lab-01",
    "/deltas",
    "/deltas?state=ready&offset=5",
    "/policies",
    "/words",
    "/policies/standard",
    "/policies/standard?fleet=1000000",
)
NO_PAGES = {"/static/{name}", "/live", "/studies/{id}.svg", "/sign-in.css", "/sign-in/oidc", "/sign-in/oidc/callback"}
"""Files, the stream that says that something has changed, and what leads to another's page: none lists anything."""

MOST_BYTES = 150_000
"""Of a page on the wire."""
