"""The parts of README and docs that are drawn from the code: ``python -m tests.docs.generate`` writes them anew.

A part stands between ``<!-- begin generated: NAME -->`` and ``<!-- end generated: NAME -->``. ``PARTS`` says what
belongs there; a test holds the pages to it. The performance table is written by ``make bench`` and is none of these.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, get_args

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from orchestrator import errors
from orchestrator.cli.app import app as wave_app
from orchestrator.cli.late import EXAMPLES, LATE
from orchestrator.core.document import Document
from orchestrator.core.durations import duration_text, share_text
from orchestrator.core.evidence.detect import detectable_rate
from orchestrator.core.evidence.limits import staircase
from orchestrator.core.fleet_file import EnrolledDevice, FleetFile
from orchestrator.core.glossary import GLOSSARY
from orchestrator.core.notices import ON_MEANING, Asked
from orchestrator.core.policy import Policy
from orchestrator.core.rollout_file import Devices, RolloutFile, Wave
from orchestrator.core.state_graphs import rollout_graph, update_table, wave_graph
from orchestrator.core.states import ROLLOUT_MEANING, WAVE_MEANING
from orchestrator.core.tolerances import Limit, OwnClass, Tolerate, Tolerated
from orchestrator.core.wave_policy import WaveOverride
from orchestrator.core.window import Hours, Window
from orchestrator.services.operations import BY_KEY
from orchestrator.services.settings import Settings
from orchestrator.web.families import FAMILIES
from tests.cli.afar import FROM_AFAR, ONLY_THERE
from tests.gateway.every_door import DESCRIPTION, description
from tests.web.described import OPERATORS, operators

ROOT: Final = Path(__file__).parents[2]
_PART: Final = re.compile(
    r"(?P<begin><!-- begin generated: (?P<name>[a-z-]+) -->\n)(?P<text>.*?)(?P<end><!-- end generated: (?P=name) -->)",
    re.DOTALL,
)


def pages() -> list[Path]:
    """README and every page of docs."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def renewed(text: str) -> str:
    """A page with its generated parts as the code says. Raises KeyError for a part that nobody generates."""
    return _PART.sub(lambda found: f"{found['begin']}{PARTS[found['name']]().strip()}\n{found['end']}", text)


def names_in(text: str) -> list[str]:
    return [found["name"] for found in _PART.finditer(text)]


def main() -> int:
    """Write every page that differs; the exit code."""
    for file, described in ((DESCRIPTION, description()), (OPERATORS, operators())):
        if not file.exists() or file.read_text(encoding="utf-8") != described:
            file.write_text(described, encoding="utf-8")
            print(f"{file.relative_to(ROOT)} written anew.")
    for page in pages():
        before = page.read_text(encoding="utf-8")
        after = renewed(before)
        if after != before:
            page.write_text(after, encoding="utf-8")
            print(f"{page.relative_to(ROOT)} written anew.")
    return 0


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    def line(cells: tuple[str, ...]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    return "\n".join([line(head), "|" + "---|" * len(head), *map(line, rows)])


# ------------------------------------------------------------------------------------------------- states


def mermaid(graph: str) -> str:
    return f"```mermaid\n{graph}\n```"


def _meanings(head: str, meanings: Mapping[Any, str]) -> str:
    return table((head, ""), [(f"`{status}`", sentence) for status, sentence in meanings.items()])


# ------------------------------------------------------------------------------------------------- files


def keys_of(model: type[Document], before: str = "") -> Iterator[tuple[str, str, str]]:
    """Every key below a model: its path, its default (or that it must be there), its meaning."""
    for name, field in model.model_fields.items():
        path = f"{before}{field.alias or name}"
        below = _document(field)
        if before.startswith(OVERRIDE):
            yield path, "as the policy", OF_A_WAVE.get(path) or _meaning(field)
        elif below is not None and below not in (Tolerated, OwnClass) and not field.is_required() and _given(field):
            yield path, "", _meaning(field)
        else:
            yield path, _default(name, field), _meaning(field)
        if below is OwnClass:
            yield from keys_of(below, f"{path}.NAME.")
        elif below is not None and below is not Tolerated:
            yield from keys_of(below, path + ("[]." if below in (Wave, EnrolledDevice, Asked) else "."))
    if model is Tolerate:
        for name, field in Tolerated.model_fields.items():
            given = "`halt`; `hold` for ignored and download_failed" if name == "then" else _default(name, field)
            yield f"{before}CLASS.{name}", given, _meaning(field)


OVERRIDE: Final = "waves[].policy."
OF_A_WAVE: Final = {f"{OVERRIDE}pace.in_flight": "Devices of this wave with an offer and no outcome, at most."}
"""Where a wave's key means something else than the policy's of that name."""


def _document(field: FieldInfo) -> type[Document] | None:
    """The model below a field, if there is one that people write as a mapping."""

    def search(kind: Any) -> type[Document] | None:
        if isinstance(kind, type):
            return kind if issubclass(kind, Document) and kind is not Limit else None
        return next((found for each in get_args(kind) if (found := search(each)) is not None), None)

    return search(field.annotation)


def _given(field: FieldInfo) -> bool:
    return field.get_default(call_default_factory=True) is not None


def _default(name: str, field: FieldInfo) -> str:
    if field.is_required():
        return "must be given"
    match field.get_default(call_default_factory=True):
        case Tolerated() as tolerated:
            return f"`{{at_most: {share_text(tolerated.at_most)}, then: {tolerated.then}}}`"
        case None:
            return "`always`" if name in ("window", "offer_window") else "none"
        case bool() as flag:
            return f"`{str(flag).lower()}`"
        case timedelta() as duration:
            return f"`{duration_text(duration)}`"
        case Hours() as hours:
            return f"`{hours.text()}`"
        case StrEnum() as word:
            return f"`{word}`"
        case float() as number:
            return f"`{share_text(number) if name not in ('growth', 'check_in_jitter') else f'{number:g}'}`"
        case tuple() as some:
            return "`daily`" if name == "days" else "none" if not some else str(some)
        case Path() as path:
            return f"`{path}`"
        case value:
            return f"`{value}`"


def _meaning(field: FieldInfo) -> str:
    """The description, without the default that has a column of its own."""
    return re.sub(r"\s*Default:? (?:[^.]|\.(?=\d))*\.$", "", field.description or "").strip()


def keys(model: type[Document]) -> str:
    return table(("key", "default", "meaning"), [(f"`{path}`", given, said) for path, given, said in keys_of(model)])


def settings() -> str:
    rows = [
        (f"`{key}`", f"`WAVE_{key.upper()}`", _default(key, field), field.description or "")
        for key, field in Settings.model_fields.items()
    ]
    return table(("key", "environment", "default", "meaning"), rows)


def later() -> str:
    """Keys that are known and refused."""
    models: dict[str, type[Document]] = {
        "policy file": Policy,
        "its `bake`": _below(Policy.model_fields["bake"]),
        "its `pace`": _below(Policy.model_fields["pace"]),
        "rollout file": RolloutFile,
        "a wave in it": Wave,
        "fleet file": FleetFile,
    }
    rows = [(f"`{key}`", place, said) for place, model in models.items() for key, said in model.later.items()]
    return table(("key", "in", "meanwhile"), rows)


def _below(field: Any) -> type[Document]:
    found = _document(field)
    assert found is not None
    return found


MODELS: Final[tuple[type[BaseModel], ...]] = (Policy, RolloutFile, FleetFile, Wave, Devices, WaveOverride, Window)
"""What files are made of, for the tests."""

# ------------------------------------------------------------------------------------------------- commands


def commands() -> Iterator[tuple[str, Any]]:
    """Every command that is not hidden, by its whole name, in the order of the help."""
    for name, late in LATE.items():
        if late.hidden:
            continue
        made = typer.main.get_command(late.build())
        below = getattr(made, "commands", None)
        if below is None:
            yield name, made
        else:
            yield from ((f"{name} {each}", command) for each, command in below.items())


def overview() -> str:
    panels: dict[str, list[str]] = {}
    for name, late in LATE.items():
        if not late.hidden:
            below = getattr(typer.main.get_command(late.build()), "commands", None)
            link = f"[`{name}`](docs/commands.md#wave-{name}{'-' + next(iter(below)) if below else ''})"
            panels.setdefault(late.panel or "", []).append(f"| | {link} | {late.short.rstrip('.')} |")
    lines = ["| | | |", "|---|---|---|"]
    for panel, rows in panels.items():
        lines += [rows[0].replace("| |", f"| **{panel}** |", 1), *rows[1:]]
    return "\n".join(lines)


def from_afar() -> str:
    """What each command asks of the orchestrator that ``--server`` names, and for whom that is."""

    def link(name: str) -> str:
        return f"[`{name}`](commands.md#wave-{name.replace(' ', '-')})"

    rows = []
    for name, _ in commands():
        if name in FROM_AFAR:
            asked = [BY_KEY[key] for key in FROM_AFAR[name].split()]
            roles = dict.fromkeys(each.role.value for each in asked)
            paths = "<br>".join(f"`{each.method} {each.path}`" for each in asked)
            rows.append((link(name), paths, ", ".join(f"`{role}`" for role in roles)))
        elif name in ONLY_THERE and name != "builder":
            rows.append((link(name), f"not from afar: it {ONLY_THERE[name]}", ""))
    return table(("command", "asks for", "for"), rows)


def command_reference() -> str:
    return "\n\n".join(_command(name, command) for name, command in commands())


def _command(name: str, command: Any) -> str:
    said = command.help.split("\n\n")[0].strip()
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option" and "--help" not in each.opts]
    usage = " ".join(["wave", name, *(each.metavar or each.name.upper() for each in arguments), "[OPTIONS]"])
    rows = [(f"`{each.metavar}`", each.help or "") for each in arguments if each.help]
    rows += [(_option(each), each.help or "") for each in options]
    examples = "\n".join(EXAMPLES.get(name, ()))
    parts = [f"### wave {name}", said, f"`{usage}`"]
    if rows:
        parts.append(table(("", ""), rows))
    if examples:
        parts.append(f"```sh\n{examples}\n```")
    return "\n\n".join(parts)


def _option(option: Any) -> str:
    value = "" if option.is_flag else f" {option.metavar or option.name.upper()}"
    return ", ".join(f"`{each}{value}`" for each in option.opts)


def global_options() -> str:
    options: list[Any] = [each for each in typer.main.get_command(wave_app).params if each.param_type_name == "option"]
    return table(("", ""), [(_option(each), each.help or "") for each in options])


# ------------------------------------------------------------------------------------------------- errors, evidence


def error_classes(top: type[errors.WaveError] = errors.WaveError) -> Iterator[type[errors.WaveError]]:
    yield top
    for below in top.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from error_classes(below)


def error_tree() -> str:
    tree = (errors.__doc__ or "").split("::\n\n", 1)[1].split("\n\n", 1)[0]
    return "```text\n" + "\n".join(line.removeprefix("    ") for line in tree.splitlines()) + "\n```"


def error_kinds() -> str:
    rows = [(f"`{each.kind}`", str(each.exit_code), f"`{each.__name__}`") for each in error_classes()]
    return table(("kind", "`wave` ends with", "class"), rows)


def staircases() -> str:
    shown = range(2, 11)
    rows = []
    for tolerance in (0.005, 0.01, 0.02, 0.05):
        stairs = staircase(tolerance, 0.05)
        rows.append((share_text(tolerance), *(str(stairs.limit(bad)) if bad >= stairs.first else "–" for bad in shown)))
    return table(("tolerance", *(f"{bad} in" for bad in shown)), rows)


def detection() -> str:
    sizes = (5, 20, 50, 100, 500, 1000, 5000)
    rows = []
    for tolerance in (0.01, 0.02, 0.05):
        rates = [detectable_rate(staircase(tolerance, 0.05), size) for size in sizes]
        rows.append((share_text(tolerance), *("nothing" if rate is None else f"{100 * rate:.2g} %" for rate in rates)))
    return table(("tolerance", *(f"{size:,}" for size in sizes)), rows)


def metrics() -> str:
    parts = []
    for about in dict.fromkeys(family.about for family in FAMILIES):
        rows = [
            (f"`{family.shown}`", family.kind, " ".join(f"`{label}`" for label in family.labels), family.says)
            for family in FAMILIES
            if family.about == about
        ]
        parts.append(f"### {about}\n\n{table(('', '', 'labels', ''), rows)}")
    return "\n\n".join(parts)


PARTS: Final[Mapping[str, Callable[[], str]]] = {
    "rollout-graph": lambda: mermaid(rollout_graph()),
    "wave-graph": lambda: mermaid(wave_graph()),
    "updates": update_table,
    "rollout-statuses": lambda: _meanings("rollout", ROLLOUT_MEANING),
    "wave-statuses": lambda: _meanings("wave", WAVE_MEANING),
    "rollout-keys": lambda: keys(RolloutFile),
    "policy-keys": lambda: keys(Policy),
    "fleet-keys": lambda: keys(FleetFile),
    "settings": settings,
    "later-keys": later,
    "glossary": lambda: table(("word", "meaning"), [(f"**{word}**", meaning) for word, meaning in GLOSSARY.items()]),
    "notice-words": lambda: table(("on", "told of"), [(f"`{on}`", meaning) for on, meaning in ON_MEANING.items()]),
    "commands": overview,
    "from-afar": from_afar,
    "command-reference": command_reference,
    "global-options": global_options,
    "error-tree": error_tree,
    "error-kinds": error_kinds,
    "staircases": staircases,
    "detection": detection,
    "metrics": metrics,
}

if __name__ == "__main__":
    sys.exit(main())
