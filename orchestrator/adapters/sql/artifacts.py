"""What is known of the artifacts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from orchestrator.adapters.sql.codec import as_json, decode_names
from orchestrator.adapters.sql.session import Session
from orchestrator.adapters.sql.times import moment, stored
from orchestrator.core.artifact import Artifact, Digests, Format
from orchestrator.errors import Refused

_COLUMNS: Final = "sha256, sha1, md5, bytes, format, filename, name, version, hardware_ids, compatible, added_at"


def _artifact(row: tuple[Any, ...]) -> Artifact:
    sha256, sha1, md5, size, kind, filename, name, version, hardware_ids, compatible, added = row
    return Artifact(
        digests=Digests(sha256, sha1, md5, size),
        format=Format(kind),
        filename=filename,
        name=name,
        version=version,
        hardware_ids=decode_names(hardware_ids),
        compatible=decode_names(compatible),
        added_at=moment(added),
    )


class ArtifactReading(Session):
    def artifact(self, sha256: str) -> Artifact | None:
        row = self.link.one(f"SELECT {_COLUMNS} FROM artifact WHERE sha256 = ?", (sha256,))
        return None if row is None else _artifact(row)

    def artifacts(self) -> Sequence[Artifact]:
        return [
            _artifact(row) for row in self.link.rows(f"SELECT {_COLUMNS} FROM artifact ORDER BY added_at DESC, sha256")
        ]

    def artifact_of_version(self, hardware_id: str, version: str) -> str | None:
        if "\0" in hardware_id or "\0" in version:
            return None  # PostgreSQL takes no text with it, and nothing is called so
        row = self.link.one(
            "SELECT sha256 FROM artifact_said WHERE hardware_id = ? AND said = ?", (hardware_id, version)
        )
        if row is not None:
            return str(row[0])
        found = self.link.rows(
            "SELECT DISTINCT a.sha256 FROM artifact a JOIN release r ON r.commit_id = a.sha256 "
            "WHERE a.version = ? AND r.hardware_id = ? LIMIT 2",
            (version, hardware_id),
        )
        return str(found[0][0]) if len(found) == 1 else None


class ArtifactWriting(ArtifactReading):
    def add_artifact(self, artifact: Artifact) -> bool:
        known = self.artifact(artifact.sha256)
        if known is not None:
            there = (known.name, known.version, set(known.hardware_ids))
            if there == (artifact.name, artifact.version, set(artifact.hardware_ids)):
                return False
            raise Refused(
                f"This file is there already as {known.name}, version {known.version}, for "
                f"{', '.join(known.hardware_ids) or 'whatever a Target says'}.",
                remedy="Remove it first, if what was said of it is wrong.",
            )
        digests = artifact.digests
        self.link.run(
            f"INSERT INTO artifact ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                digests.sha256,
                digests.sha1,
                digests.md5,
                digests.size,
                artifact.format.value,
                artifact.filename,
                artifact.name,
                artifact.version,
                as_json(list(artifact.hardware_ids)),
                as_json(list(artifact.compatible)),
                None if artifact.added_at is None else stored(artifact.added_at),
            ),
        )
        for hardware_id in artifact.hardware_ids:
            for said in artifact.said:
                self._recognise(hardware_id, said, artifact)
        return True

    def _recognise(self, hardware_id: str, said: str, artifact: Artifact) -> None:
        self.link.run(
            "INSERT INTO artifact_said (hardware_id, said, sha256) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            (hardware_id, said, artifact.sha256),
        )
        row = self.link.one("SELECT sha256 FROM artifact_said WHERE hardware_id = ? AND said = ?", (hardware_id, said))
        if row is not None and row[0] != artifact.sha256:
            raise Refused(
                f"A device {hardware_id} that says {said!r} runs the artifact {row[0][:12]} already, not "
                f"{artifact.sha256[:12]}.",
                remedy="Give this one another version, or remove the other.",
            )

    def remove_artifact(self, sha256: str) -> bool:
        self.link.run("DELETE FROM artifact_said WHERE sha256 = ?", (sha256,))
        return self.link.run("DELETE FROM artifact WHERE sha256 = ?", (sha256,)) > 0
