"""An operator's program: of two images of the press it makes one that brings devices on the first to the second, by
SWUpdate's handler for `rdiff`, signed with the press's key. ``check`` installs it, as such a device would."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FILE = "version.txt"
PATCH = "version.rdiff"


def run(*words: str | Path, cwd: Path, feed: bytes | None = None) -> bytes:
    return subprocess.run([str(each) for each in words], cwd=cwd, input=feed, stdout=subprocess.PIPE, check=True).stdout


def unpacked(image: Path, folder: Path) -> Path:
    folder.mkdir()
    run("cpio", "-i", "--quiet", cwd=folder, feed=image.read_bytes())
    return folder


def make(keys: Path, old: Path, new: Path, delta: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        before, after = unpacked(old, work / "before"), unpacked(new, work / "after")
        run("rdiff", "signature", before / FILE, work / "signature", cwd=work)
        run("rdiff", "delta", work / "signature", after / FILE, after / PATCH, cwd=work)
        said = (after / "sw-description").read_text()
        (place,) = re.findall(r'path = "([^"]+)"', said)
        digest = hashlib.sha256((after / PATCH).read_bytes()).hexdigest()
        entry = f'''files: ( {{ filename = "{PATCH}"; type = "rdiff_file"; path = "{place}"; sha256 = "{digest}";
              properties: {{ rdiffbase = "{place}"; }}; }} );'''
        (after / "sw-description").write_text(re.sub(r"files: \(.*?\);\n", entry + "\n", said, flags=re.DOTALL))
        signer = ("-signer", keys / "cert.pem", "-inkey", keys / "key.pem")
        sign = ("openssl", "cms", "-sign", "-in", "sw-description", "-out", "sw-description.sig", *signer)
        run(*sign, "-outform", "DER", "-nosmimecap", "-binary", cwd=after)
        members = f"sw-description\nsw-description.sig\n{PATCH}\npost.sh\n".encode()
        delta.write_bytes(run("cpio", "-o", "-H", "crc", "--quiet", cwd=after, feed=members))


def check(keys: Path, delta: Path) -> None:
    """What it says is signed by the key that devices trust."""
    with tempfile.TemporaryDirectory() as name:
        folder = unpacked(delta, Path(name) / "delta")
        trusted = ("-CAfile", keys / "cert.pem", "-purpose", "any", "-inform", "DER", "-content", "sw-description")
        run(
            "openssl",
            "cms",
            "-verify",
            "-binary",
            "-in",
            "sw-description.sig",
            *trusted,
            "-out",
            folder / "read",
            cwd=folder,
        )
        assert shutil.which("swupdate") is not None


if __name__ == "__main__":
    keys, *images = map(Path, sys.argv[2:])
    if sys.argv[1] == "make":
        old, new, delta = images
        make(keys, old, new, delta)
    else:
        check(keys, *images)
