"""The pictures of the console that README and the docs show: ``python -m tests.web.e2e.chosen`` writes them into
``docs/console`` from those that the tests left in ``build/console``. ``make screenshots`` does both.

Each is cut out and painted with a palette: a page of text has few colours, and a file a quarter of the size.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final, NamedTuple

from PIL import Image

from tests.web.e2e.looking import BUILD

SHOWN: Final = Path(__file__).parents[3] / "docs" / "console"

COLOURS: Final = 160
RARE: Final = 48
"""Of these colours."""

MOST_BYTES: Final = 160_000


class Cut(NamedTuple):
    """A picture of the tests, and where it begins and ends: None is its own end."""

    picture: str
    bottom: int | None = None
    top: int = 0


CHOSEN: Final = {
    "rollouts": Cut("rollouts-1440-light"),
    "rollout": Cut("rollout-1440-light", 1440),
    "evidence": Cut("rollout-1440-light", 2600, 1430),
    "rollout-dark": Cut("rollout-halted-1440-dark", 1500),
    "rollout-phone": Cut("rollout-halted-390-light", 1500),
    "gates": Cut("rollout-gates-1440-light", 1100),
    "order": Cut("order-halt-1440-light"),
    "fleet": Cut("fleet-1440-light", 1200),
    "device": Cut("device-failed-1440-light"),
    "deltas": Cut("deltas-1440-dark"),
    "policy": Cut("policy-played-1440-light", 1300),
    "sign-in": Cut("sign-in-390-dark"),
}
"""By the name it has in the docs."""


def shown(name: str) -> Path:
    return SHOWN / f"{name}.png"


def write(name: str, cut: Cut) -> int:
    """The bytes of the file that is written."""
    with Image.open(BUILD / f"{cut.picture}.png") as found:
        whole = found.convert("RGB")
    bottom = min(whole.height, cut.bottom or whole.height)
    painted = _painted(whole.crop((0, cut.top, whole.width, bottom)))
    SHOWN.mkdir(parents=True, exist_ok=True)
    painted.save(shown(name), optimize=True)
    return shown(name).stat().st_size


def _painted(part: Image.Image) -> Image.Image:
    """With the colours that cover most of it as they are, and some for what is rare: a red number, a green dot."""
    often = sorted(part.getcolors(1 << 24) or (), key=lambda each: each[0], reverse=True)[: COLOURS - RARE]
    rare = part.quantize(RARE, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette([*(value for _, colour in often for value in _channels(colour)), *rare[: 3 * RARE]])
    return part.quantize(palette=palette, dither=Image.Dither.NONE)


def _channels(colour: object) -> tuple[int, ...]:
    assert isinstance(colour, tuple)
    return colour


def main() -> int:
    missing = [cut.picture for cut in CHOSEN.values() if not (BUILD / f"{cut.picture}.png").exists()]
    if missing:
        print(f"Not there: {', '.join(missing)}. Run the tests first: make screenshots", file=sys.stderr)
        return 1
    for name, cut in CHOSEN.items():
        size = write(name, cut)
        print(f"{shown(name).relative_to(SHOWN.parents[1])} has {size:,} bytes")
        if size > MOST_BYTES:
            print(f"That is more than {MOST_BYTES:,}: cut it shorter.", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
