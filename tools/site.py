"""What `make docs` does to the pages on their way into the site, so that they stay what a code host shows as well.

* README is the first page. A page without a place in the navigation gets one.
* A link to what is no page (a test, an example) becomes its words: the site does not hold them.
* Graphs of states become tables: to draw them a browser would ask another host for a program.
* Comments go, and a list that follows a sentence at once gets the empty line that Markdown asks for here.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?P<picture>!?)\[(?P<words>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^)\s]+)\)")
_MERMAID = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ARROW = re.compile(r"^\s*(\S+) --> (\S+)(?:: (.*))?$", re.MULTILINE)
_COMMENT = re.compile(r"^<!--.*?-->\n?", re.MULTILINE | re.DOTALL)
_LIST = re.compile(r"^(?!\s*(?:[*-]|\d+\.) |\s*$|\s{2})(.+)\n(?=(?:[*-]|\d+\.) )", re.MULTILINE)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """A page that nobody has given a place stands in the reference, rather than nowhere."""
    place = Path(config.docs_dir)
    named = set(re.findall(r"[\w/-]+\.md", str(config.nav)))
    loose = sorted({page.relative_to(place).as_posix() for page in place.rglob("*.md")} - named)
    for section in config.nav or []:
        if isinstance(section, dict) and "Reference" in section:
            section["Reference"] += loose
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """README, as if it lay among the pages."""
    readme = Path(config.config_file_path).with_name("README.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "index.md", content=readme))
    return files


def on_page_markdown(markdown: str, *, page: Page, files: Files, **_: Any) -> str:
    """A page as the site's Markdown reads it."""
    # README lies above the folder of the pages, all others in it
    place = "" if page.file.src_uri == "index.md" else f"docs/{page.file.src_uri}"
    markdown = _MERMAID.sub(lambda found: _table(found[1]), markdown)
    parts = _FENCE.split(_COMMENT.sub("", markdown))
    for number in range(0, len(parts), 2):
        text = _LIST.sub(r"\1\n\n", parts[number])
        parts[number] = _LINK.sub(lambda found: _link(found, place, page.file.src_uri, files), text)
    return "".join(parts)


def _link(found: re.Match[str], place: str, source: str, files: Files) -> str:
    path, hash_, anchor = found["target"].partition("#")
    if "://" in path or not path:
        return found[0]
    there = posixpath.normpath(posixpath.join(posixpath.dirname(place), path))
    wanted = "index.md" if there == "README.md" else there.removeprefix("docs/")
    if (there != "README.md" and not there.startswith("docs/")) or files.get_file_from_path(wanted) is None:
        return found["words"]
    target = posixpath.relpath(wanted, posixpath.dirname(source) or ".")
    return f"{found['picture']}[{found['words']}]({target}{hash_}{anchor})"


def _table(graph: str) -> str:
    rows = [(one, other, who or "") for one, other, who in _ARROW.findall(graph) if one != "[*]" and other != "[*]"]
    return "\n".join(["| from | to | by |", "|---|---|---|", *(f"| `{a}` | `{b}` | {who} |" for a, b, who in rows)])
