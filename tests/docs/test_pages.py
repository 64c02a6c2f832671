"""README and docs are held to the code: generated parts are up to date, what there is appears, what is shown works."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from orchestrator.adapters.files.library import Library
from orchestrator.adapters.files.settings import ELSEWHERE, PREFIX, load_settings
from orchestrator.adapters.notify.destinations import read_destinations
from orchestrator.cli.app import INTERRUPTED, USAGE_ERROR
from orchestrator.cli.late import EXAMPLES
from orchestrator.cli.render.rollout import EXIT, TIMED_OUT
from orchestrator.core.document import Document
from orchestrator.core.fleet import DeviceStatus
from orchestrator.core.offers import NoOfferKind
from orchestrator.core.outcomes import Answer, OutcomeClass
from orchestrator.core.policy import Policy
from orchestrator.core.rollout_file import RolloutFile
from orchestrator.core.states import ReasonKind, RolloutStatus, WaveStatus
from orchestrator.core.update import EventKind, UpdateStatus
from orchestrator.errors import InvalidFile
from orchestrator.gateway.http import KINDS
from orchestrator.services.chronicle import EVENTS
from orchestrator.services.delta_views import DeltaState
from orchestrator.services.messages import Answer as CheckInAnswer
from orchestrator.services.messages import CheckIn, Enrol, Enrolled, Received, Report
from orchestrator.services.settings import Settings
from tests.docs import generate

PAGES = generate.pages()
TEXT = {page: page.read_text(encoding="utf-8") for page in PAGES}
EVERYTHING = "\n".join(TEXT.values())
WORDS = set(re.findall(r"`([^`\n]+)`", EVERYTHING))
"""What stands in backticks, of which the words that programs can rely on must be among."""


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, its language, its text, and the comment on the line before it."""

    page: Path
    line: int
    language: str
    mark: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(language: str) -> list[Block]:
    found = []
    for page, text in TEXT.items():
        for match in re.finditer(r"(?:<!-- ([^>]*?) -->\n)?^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            if match[2] == language:
                line = text.count("\n", 0, match.start()) + 1
                found.append(Block(page, line, match[2], match[1] or "", match[3]))
    return found


# ------------------------------------------------------------------------------------------------- generated parts


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_generated_parts_say_what_the_code_says(page: Path) -> None:
    assert generate.renewed(TEXT[page]) == TEXT[page], "type: python -m tests.docs.generate"


def test_every_generated_part_stands_somewhere_and_is_closed() -> None:
    found = [name for text in TEXT.values() for name in generate.names_in(text)]
    assert sorted(found) == sorted(generate.PARTS)
    assert EVERYTHING.count("<!-- begin ") == EVERYTHING.count("<!-- end ")


# ------------------------------------------------------------------------------------------------- what must appear


def missing(words: Iterable[str], among: str) -> list[str]:
    """Those that stand nowhere between backticks."""
    quoted = set(re.findall(r"`([^`\n]+)`", among))
    return sorted({str(word) for word in words} - quoted)


def test_every_command_and_example_appears() -> None:
    reference = TEXT[generate.ROOT / "docs/commands.md"]
    for name, command in generate.commands():
        assert f"### wave {name}\n" in reference
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert all(option in reference for option in parameter.opts), (name, parameter.opts)
        assert all(example in reference for example in EXAMPLES[name]), name


@pytest.mark.parametrize("model", [Policy, RolloutFile, *generate.MODELS], ids=lambda model: model.__name__)
def test_every_key_of_a_file_appears(model: type[Document]) -> None:
    reference = TEXT[generate.ROOT / "docs/files.md"]
    quoted = {path.rpartition(".")[2] for path in re.findall(r"^\| `([^`]+)` \|", reference, re.MULTILINE)}
    assert set(model.allowed_keys()) | set(model.later) <= quoted


def test_every_key_of_a_policy_stands_in_an_example() -> None:
    """One that can be copied: the block of docs/files.md that has them all."""
    (text,) = (block.text for block in blocks("yaml") if "policy: everything" in block.text)
    for path, _, _ in generate.keys_of(Policy):
        name = path.rpartition(".")[2]
        assert re.search(rf"\b{name}\b", text) or name in ("CLASS", "NAME"), path


def test_every_setting_and_variable_appears() -> None:
    assert missing(Settings.model_fields, EVERYTHING) == []
    own = [f"{PREFIX}{name}" for name in ELSEWHERE if name != "WORKER_OF"]  # between processes of one `wave serve`
    assert missing([f"{PREFIX}{key.upper()}" for key in Settings.model_fields] + own, EVERYTHING) == []


STATUSES = (RolloutStatus, WaveStatus, UpdateStatus, DeviceStatus, DeltaState)
KINDS_OF_WORDS = (*STATUSES, ReasonKind, NoOfferKind, EventKind, OutcomeClass, Answer)


@pytest.mark.parametrize("words", KINDS_OF_WORDS, ids=lambda words: words.__name__)
def test_every_bounded_word_appears(words: Iterable[str]) -> None:
    assert missing(words, EVERYTHING) == []


def test_every_kind_of_error_appears() -> None:
    kinds = TEXT[generate.ROOT / "docs/kinds.md"]
    assert missing((each.kind for each in generate.error_classes()), kinds) == []
    assert missing(("usage", "aborted", "internal"), kinds) == []


def first_words(page: str, heading: str, column: int = 0) -> set[str]:
    """What stands in backticks in one column of the table below a heading."""
    below = TEXT[generate.ROOT / page].partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in below.splitlines() if line.startswith("|")]
    return {word for row in rows for word in re.findall(r"`([^`]+)`", row[column])}


def test_tables_of_kinds_have_these_and_no_others() -> None:
    assert first_words("docs/devices.md", "Errors", column=1) == set(KINDS)
    assert first_words("docs/kinds.md", "Reasons") == set(ReasonKind)
    assert first_words("docs/kinds.md", "Why a device has no offer") == set(NoOfferKind)
    assert first_words("docs/devices.md", "Reports") >= set(EventKind)


def test_every_refusal_of_an_item_appears() -> None:
    source = (generate.ROOT / "orchestrator/services/reports.py").read_text(encoding="utf-8")
    kinds = re.findall(r'return "(\w+)", f"', source)
    assert len(kinds) == 5
    assert missing(kinds, TEXT[generate.ROOT / "docs/devices.md"]) == []


def test_every_event_of_the_journal_appears() -> None:
    source = (generate.ROOT / "orchestrator/services/rollouts.py").read_text(encoding="utf-8")
    ordered = set(re.findall(r'event="(\w+)"', source)) | {"paused", "skipped", "wave_cancelled", "frozen", "unfrozen"}
    assert missing(ordered | set(EVENTS.values()), TEXT[generate.ROOT / "docs/kinds.md"]) == []


def test_every_exit_code_appears() -> None:
    table = TEXT[generate.ROOT / "docs/commands.md"].partition("## Exit codes")[2].partition("\n## ")[0]
    said = {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    ended = {USAGE_ERROR, INTERRUPTED, TIMED_OUT}
    codes = {0, *ended, *EXIT.values(), *(each.exit_code for each in generate.error_classes())}
    assert said == codes


# ------------------------------------------------------------------------------------------------- what must hold


def slug(heading: str) -> str:
    """The anchor of a heading, as code hosts make it."""
    return re.sub(r"[^\w\- ]", "", heading.replace("`", "").strip().lower()).replace(" ", "-")


def links() -> Iterator[tuple[Path, str]]:
    for page, text in TEXT.items():
        for target in re.findall(r"(?<!!)\[[^]]*\]\(([^)\s]+)\)", text):
            yield page, target


@pytest.mark.parametrize(("page", "target"), sorted(set(links())), ids=lambda part: getattr(part, "name", part))
def test_every_link_leads_somewhere(page: Path, target: str) -> None:
    assert not target.startswith("/"), "a path of one machine"
    path, _, anchor = target.partition("#")
    goal = (page.parent / path).resolve() if path else page
    assert goal.exists(), f"{page.name} names {target}"
    if anchor:
        headings = re.findall(r"^#+ (.*)$", goal.read_text(encoding="utf-8"), re.MULTILINE)
        assert anchor in {slug(each) for each in headings}, f"{page.name} names {target}"


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_every_yaml_block_is_what_it_says(block: Block, tmp_path: Path) -> None:
    kind, _, refusal = block.mark.removeprefix("yaml: ").partition(" refused ")
    file = tmp_path / f"{kind}.yaml"
    file.write_text(block.text, encoding="utf-8")
    if kind == "settings":
        assert isinstance(load_settings(file, {}, {}), Settings)
    elif kind == "destinations":
        file.chmod(0o600)
        assert read_destinations(file)
    elif refusal:
        with pytest.raises(InvalidFile, match=re.escape(refusal.strip('"'))) as refused:
            Library().check(file)
        assert refused.value.line is not None
    else:
        assert f"is a {kind}" in Library().check(file)


SHAPES = {
    "check-in": CheckIn,
    "answer": CheckInAnswer,
    "report": Report,
    "received": Received,
    "enrol": Enrol,
    "enrolled": Enrolled,
}


@pytest.mark.parametrize("block", blocks("json"), ids=str)
def test_every_json_block_is_a_message_with_no_field_too_many(block: Block) -> None:
    shape = SHAPES[block.mark.removeprefix("json: ")]
    message = msgspec.json.decode(block.text, type=shape)
    assert isinstance(message, shape)
    if isinstance(message, CheckIn):
        message.check()
    told = msgspec.to_builtins(message)
    assert _without_nulls(told) == _without_nulls(json.loads(block.text))


def _without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value


WITHOUT_A_WORD = {"journal": "journal show"}
"""Groups that do something by themselves, and what."""


@pytest.mark.parametrize("block", blocks("sh"), ids=str)
def test_every_wave_command_in_a_shell_block_is_one(block: Block) -> None:
    known = {name for name, _ in generate.commands()} | set(WITHOUT_A_WORD)
    for line in block.text.splitlines():
        for said in re.findall(r"(?:^|\$\(|&& )wave ((?:--root \S+ )?[a-z-]+(?: [a-z-]+)?)", line.strip()):
            words = re.sub(r"^--root \S+ ", "", said).split()
            assert words[0] in known or " ".join(words) in known, line


def said_in_code() -> Iterator[tuple[str, str]]:
    """Every command line that stands in backticks in a string of the program, and where; what is filled in is X."""
    for file in sorted((generate.ROOT / "orchestrator").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            match node:
                case ast.JoinedStr(values=values):
                    text = "".join(str(each.value) if isinstance(each, ast.Constant) else "X" for each in values)
                case ast.Constant(value=str() as text):
                    pass
                case _:
                    continue
            for said in re.findall(r"`(wave [^`]*)`", text):
                if "…" not in said and "|" not in said:  # several at once
                    yield f"{file.name}:{node.lineno}", said


def test_every_command_that_the_program_advises_is_one() -> None:
    known = dict(generate.commands())
    advice = set(said_in_code())
    assert len(advice) > 40
    wrong = []
    for where, said in sorted(advice):
        _, first, *rest = said.split()
        command = (
            known.get(first) or known.get(" ".join([first, *rest[:1]])) or known.get(WITHOUT_A_WORD.get(first, ""))
        )
        options = {option for each in command.params for option in each.opts} if command is not None else set()
        if said != "wave --help" and (
            command is None or any(word not in options for word in rest if word.startswith("--"))
        ):
            wrong.append(f"{where} {said}")
    assert wrong == []


def test_no_page_names_a_machine_or_what_is_left_to_do() -> None:
    unwanted = re.compile(r"(?i)/(?:home|root|work|tmp)/|pypi\.org|localhost:\d|\bassistant\b|\bTODO\b|\bFIXME\b")
    for page, text in TEXT.items():
        assert unwanted.findall(text) == [], page.name


def test_no_line_of_prose_is_too_long() -> None:
    for page, text in TEXT.items():
        long = [line for line in text.splitlines() if len(line) > 120 and not line.startswith(("|", "<!--", "!["))]
        assert long == [], page.name


def test_the_picture_of_the_demo_is_there() -> None:
    assert (generate.ROOT / "docs/demo.svg").is_file(), "type: python -m examples.demo --picture docs/demo.svg"
