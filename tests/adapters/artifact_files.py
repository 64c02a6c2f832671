"""Artifacts made by the tools that make them in the field; for the hostile ones, byte by byte."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from pathlib import Path


def run(*words: str | Path, cwd: Path, stdin: bytes | None = None) -> bytes:
    ended = subprocess.run([str(w) for w in words], cwd=cwd, input=stdin, capture_output=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr.decode()
    return ended.stdout


def make_key(folder: Path) -> None:
    run(
        *"openssl req -x509 -newkey rsa:2048 -nodes -days 30 -keyout key.pem -out cert.pem -subj /CN=test "
        "-addext extendedKeyUsage=emailProtection -addext keyUsage=digitalSignature".split(),
        cwd=folder,
    )


def make_swu(folder: Path, description: str, *, name: str = "image.swu", payload: bytes = b"content") -> Path:
    """Signed, as SWUpdate of Debian asks for it."""
    if not (folder / "key.pem").exists():
        make_key(folder)
    (folder / "sw-description").write_text(description)
    (folder / "payload").write_bytes(payload)
    run(
        *"openssl cms -sign -in sw-description -out sw-description.sig -signer cert.pem -inkey key.pem -outform DER "
        "-nosmimecap -binary".split(),
        cwd=folder,
    )
    members = b"sw-description\nsw-description.sig\npayload\n"
    (folder / name).write_bytes(run("cpio", "-o", "-H", "crc", "--quiet", cwd=folder, stdin=members))
    return folder / name


def make_mender(folder: Path, *options: str, name: str = "app.mender") -> Path:
    (folder / "app.txt").write_text("the app")
    for file, said in (("dest_dir", "/opt"), ("filename", "app.txt"), ("permissions", "644")):
        (folder / file).write_text(said)
    run(
        *"mender-artifact write module-image -T single-file -t simdev -t otherdev -n app-1.1.0 --software-name app "
        "--software-version 1.1.0 -f dest_dir -f filename -f permissions -f app.txt -o".split(),
        name,
        *options,
        cwd=folder,
    )
    return folder / name


def make_raucb(folder: Path, *, verity: bool = False) -> Path:
    """As RAUC lays it out: a squashfs, a CMS signature (which holds the manifest of a verity bundle), its length."""
    if not (folder / "key.pem").exists():
        make_key(folder)
    (folder / "tree").mkdir(exist_ok=True)
    manifest = "[update]\ncompatible=Board X\nversion=2026.11-1\n\n[image.rootfs]\nfilename=rootfs.img\n"
    (folder / "tree" / "rootfs.img").write_bytes(b"rootfs" * 100)
    (folder / "manifest").write_text(manifest)
    if not verity:
        (folder / "tree" / "manifest.raucm").write_text(manifest)
    run(*"mksquashfs tree image.squashfs -quiet -no-progress -noappend".split(), cwd=folder)
    attached = ["-nodetach"] if verity else []
    signature = run(
        *"openssl cms -sign -binary -in manifest -signer cert.pem -inkey key.pem -outform DER".split(),
        *attached,
        cwd=folder,
    )
    image = (folder / "image.squashfs").read_bytes()
    (folder / "update.raucb").write_bytes(image + signature + len(signature).to_bytes(8, "big"))
    return folder / "update.raucb"


def cpio(name: bytes, content: bytes, *, size: int | None = None, name_size: int | None = None) -> bytes:
    """One member of a cpio archive in the newc format."""
    told = len(content) if size is None else size
    named = len(name) + 1 if name_size is None else name_size
    fields = [0, 0o100644, 0, 0, 1, 0, told, 0, 0, 0, 0, named, 0]
    head = b"070701" + b"".join(b"%08X" % each for each in fields) + name + b"\0"
    return head + b"\0" * (-len(head) % 4) + content + b"\0" * (-len(content) % 4)


def tar(members: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return made.getvalue()


def mender(header: bytes, *, suffix: str = "", version: object = 3) -> bytes:
    said = json.dumps({"format": "mender", "version": version}).encode()
    return tar({"version": said, "manifest": b"", f"header.tar{suffix}": header, "data/0000.tar": b""})
