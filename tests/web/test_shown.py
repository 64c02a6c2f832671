"""What the docs show of the console is what the tests made of it: pictures, and figures within their bounds."""

from __future__ import annotations

import re

from tests.web.e2e.chosen import CHOSEN, MOST_BYTES, SHOWN, shown
from tests.web.e2e.figures import BEGIN, END, HEAD, MEASURED, PAGE
from tests.web.e2e.test_looks import MOST_BYTES as MOST_OF_A_PAGE
from tests.web.e2e.test_looks import MOST_SHIFT


def test_every_picture_is_one_that_the_tests_make_is_shown_and_is_small() -> None:
    assert {each.name for each in SHOWN.iterdir()} == {shown(name).name for name in CHOSEN}, "type: make screenshots"
    text = PAGE.read_text(encoding="utf-8")
    for name in CHOSEN:
        assert f"](console/{name}.png)" in text
        assert shown(name).stat().st_size <= MOST_BYTES


def test_the_table_has_every_page_that_is_measured_and_no_figure_beyond_its_bound() -> None:
    text = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.*) \|$", text[text.index(BEGIN) : text.index(END)], re.MULTILINE)
    head, *rest = [row.split(" | ") for row in rows]
    assert tuple(head) == HEAD
    assert [row[0] for row in rest] == list(MEASURED.values()), "type: make bench-browser"
    for row in rest:
        found = dict(zip(HEAD, row, strict=True))
        assert float(found["shift, desk"]) <= MOST_SHIFT and float(found["shift, phone"]) <= MOST_SHIFT
        assert 1000 * float(found["on the wire"].removesuffix(" KB")) <= MOST_OF_A_PAGE
        assert found["axe"] == "none"
