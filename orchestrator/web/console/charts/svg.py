"""SVG as the server writes it: elements whose attributes and texts are escaped, nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from typing import Final

from markupsafe import Markup

Child = Markup | str
Value = str | float | int

_NAMES: Final = {"class_": "class", "view_box": "viewBox", "for_": "for"}
_NEVER_EMPTY: Final = frozenset({"a", "progress"})
"""Elements that HTML does not let end where they begin."""
_SPECIAL: Final = re.compile("[&<>\"']")


def el(name: str, *children: Child | Iterable[Child], **attributes: Value | None) -> Markup:
    """An element. ``class_`` is ``class``; other underscores are hyphens; None leaves an attribute out; numbers are
    written as short as they can be."""
    # A page has hundreds of these: text is looked at once, and most of it needs no escaping.
    tag = f"<{name}"
    for key, value in attributes.items():
        if value is not None:
            tag += f' {_NAMED[key]}="{escaped(value) if isinstance(value, str) else short(value)}"'
    inner = "".join([_inner(child) for child in children])
    if inner or name in _NEVER_EMPTY:
        return str.__new__(Markup, f"{tag}>{inner}</{name}>")
    return str.__new__(Markup, f"{tag}/>")


class _Named(dict[str, str]):
    """Names of attributes, by what they are called in Python."""

    def __missing__(self, key: str) -> str:
        name = self[key] = _NAMES.get(key) or key.replace("_", "-")
        return name


_NAMED: Final = _Named()


def escaped(text: str) -> str:
    """As it may stand in an element or an attribute."""
    return escape(text) if _SPECIAL.search(text) else text


def _inner(child: Child | Iterable[Child]) -> str:
    if isinstance(child, Markup):
        return child
    if isinstance(child, str):
        return escaped(child)
    return "".join([_inner(each) for each in child])


def short(value: float) -> str:
    """``12``, ``12.5``: a tenth of a pixel is enough."""
    said = str(value) if isinstance(value, int) else f"{value:.1f}"
    return said[:-2] if said[-2:] == ".0" else said


def picture(
    width: float, height: float, *children: Child | Iterable[Child], title: str, described: str, id: str, class_: str
) -> Markup:
    """A picture with its name, and what it shows in words, for who cannot see it."""
    return el(
        "svg",
        el("title", title, id=f"{id}-title"),
        el("desc", described, id=f"{id}-desc"),
        *children,
        view_box=f"0 0 {short(width)} {short(height)}",
        width=width,
        height=height,
        role="img",
        aria_labelledby=f"{id}-title",
        aria_describedby=f"{id}-desc",
        class_=class_,
    )


def round_steps(highest: float, *, about: int = 5) -> list[float]:
    """Round numbers from 0 to ``highest`` or just above, ``about`` of them: the marks of an axis of whole things."""
    if highest <= 0:
        return [0, 1]
    rough = max(1.0, highest / about)
    size = 1.0
    while size * 10 <= rough:
        size *= 10
    step = next(size * part for part in (1, 2, 5, 10) if size * part >= rough)
    count = int(-(-highest // step))
    return [step * number for number in range(count + 1)]
