"""``wave tuf …``: the roots and keys by which aktualizr-lite devices trust what they are shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.context import AsJson, Invocation, Yes, confirm, invocation
from orchestrator.cli.late import command, group
from orchestrator.errors import InvalidInput, NotFound, WaveError

if TYPE_CHECKING:
    from orchestrator.services.tuf import TufView

app = group("tuf")

Keys = Annotated[
    Path | None,
    typer.Option("--keys", metavar="DIR", help="Take timestamp.key, snapshot.key and targets.key from there."),
]
RootKey = Annotated[
    list[Path] | None,
    typer.Option("--root-key", metavar="FILE", help="The root's private key, where it is kept elsewhere."),
]


@command(
    app,
    "init",
    "wave tuf init",
    "wave tuf init --root-key /media/stick/root.pem",
    "wave tuf init --import 1.root.json --import 2.root.json --root-key root.sec",
)
def init(
    ctx: typer.Context,
    keys: Keys = None,
    root_key: RootKey = None,
    take_over: Annotated[
        list[Path] | None,
        typer.Option("--import", metavar="FILE", help="A root that devices trust already; give all, with its key."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Begin a TUF repository: keys and the first root, or the next root of one that devices trust already."""
    call = invocation(ctx, as_json=as_json)
    call.require_here()
    given = root_key or []
    if take_over:
        roots = [_content(each) for each in take_over]
        with _noted(call, "tuf_taken_over", "took over the TUF repository of devices that trust one already"):
            made = call.tuf().take_over(roots, root_keys=given, keys=keys)
    elif len(given) > 1:
        raise InvalidInput("A new repository has one root key.", remedy="Give --root-key once.")
    else:
        with _noted(call, "tuf_begun", "began a TUF repository"):
            made = call.tuf().init(keys=keys, root_key=given[0] if given else None)
    if as_json:
        return call.answer("tuf", made)
    call.show(f"Root {made.roots[0].version} is made; it is good until {made.roots[0].expires_at:%Y-%m-%d}.")
    if made.root_key:
        call.show("Move the root's private key to a safe place; `wave tuf rotate --root-key FILE` takes it:")
        call.lines(str(made.place / "keys" / "root.key"))


@command(
    app,
    "rotate",
    "wave tuf rotate --root-key /media/stick/root.pem",
    "wave tuf rotate --same-keys --root-key /media/stick/root.pem",
)
def rotate(
    ctx: typer.Context,
    root_key: RootKey = None,
    new_root_key: Annotated[
        Path | None, typer.Option("--new-root-key", metavar="FILE", help="From now on this is the root's key.")
    ] = None,
    keys: Keys = None,
    same_keys: Annotated[
        bool, typer.Option("--same-keys", help="Keep the online keys; the root gets a later end.")
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Make the next root, with new online keys; devices follow at their next check-in."""
    call = invocation(ctx, as_json=as_json)
    call.require_here()
    if same_keys and keys is not None:
        raise InvalidInput("--same-keys and --keys exclude each other.")
    confirm(call, "Make a new root?", yes=yes)
    deed = f"made the next TUF root, with {'the same' if same_keys else 'new'} online keys"
    with _noted(call, "tuf_rotated", f"{deed}{' and a new root key' if new_root_key else ''}"):
        made = call.tuf().rotate(root_keys=root_key or [], new_root_key=new_root_key, keys=keys, same_keys=same_keys)
    if as_json:
        return call.answer("tuf", made)
    call.show(f"Root {made.roots[0].version} is made; it is good until {made.roots[0].expires_at:%Y-%m-%d}.")


@command(app, "show", "wave tuf show", "wave tuf show --json")
def show(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Show roots, their ends and keys, and what is wrong with them."""
    call = invocation(ctx, as_json=as_json)
    found = call.tuf().show()
    if as_json:
        return call.answer("tuf", found)
    _page(call, found)


@contextmanager
def _noted(call: Invocation, event: str, deed: str) -> Iterator[None]:
    """Stands in the house's log, where there is a store to write it into: a root that ends soon waits for none.

    Nor for a store that is busy, or for settings that have nothing to do with it."""
    by = call.by
    with ExitStack() as stack:
        try:
            house = stack.enter_context(call.application())
            stack.enter_context(house.house_log.during(event, "tuf", deed, by=by))
        except WaveError as error:
            call.tell(f"This stands in no log: {error.message}")
        yield


def _page(call: Invocation, found: TufView) -> None:
    from orchestrator.cli.render.grid import Grid

    grid = Grid([">ROOT", "GOOD UNTIL", "ROOT KEYS", "ONLINE KEYS"])
    for root in found.roots:
        online = dict.fromkeys(keyid[:12] for _, keyid in root.online_keys)
        root_keys = ", ".join(keyid[:12] for keyid in root.root_keys)
        of = f" ({root.threshold} of them sign)" if len(root.root_keys) > 1 else ""
        grid.add(root.version, f"{root.expires_at:%Y-%m-%d %H:%M}", f"{root_keys}{of}", ", ".join(online))
    call.show(grid)
    if found.root_key:
        call.show("The root's private key lies beside the others; move it to a safe place:")
        call.lines(str(found.place / "keys" / "root.key"))
    if found.problem is not None:
        call.show(f"! {found.problem}")


def _content(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(1024 * 1024)
    except FileNotFoundError:
        raise NotFound(f"There is no file {file}.") from None
    except OSError as error:
        raise InvalidInput(f"{file} cannot be read: {error.strerror}.") from None
