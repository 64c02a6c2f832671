"""Which protocol a device speaks, and the highest version it has run."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from orchestrator.adapters.sql.members import all_of, eligible, in_some_wave, listed
from orchestrator.adapters.sql.session import Session
from orchestrator.core.fleet import Scope
from orchestrator.core.protocols import DeviceProtocol, Spoken
from orchestrator.services.protocols import Held


class ProtocolReading(Session):
    def spoken(self, device_keys: Collection[int]) -> Mapping[int, Spoken]:
        if not device_keys:
            return {}
        condition, keys = self.link.within("device_key", device_keys)
        rows = self.link.rows(
            f"SELECT device_key, protocol, highest_version FROM device_protocol WHERE {condition}", (keys,)
        )
        return {key: Spoken(DeviceProtocol(protocol), highest) for key, protocol, highest in rows}

    def only_forward(self, scope: Scope, protocols: Collection[DeviceProtocol], *, limit: int) -> Held:
        asked = all_of(eligible(scope), in_some_wave(scope))
        spoken = listed(sorted(protocols))
        where = (
            f"FROM device d JOIN device_protocol p ON p.device_key = d.key WHERE p.protocol IN ({spoken.sql}) "
            "AND (p.highest_version > ? OR EXISTS (SELECT 1 FROM software s WHERE s.key = d.software_key "
            f"AND s.version > ?)) AND {asked.sql}"
        )
        parameters = (*spoken.parameters, scope.version, scope.version, *asked.parameters)
        many = self.link.one(f"SELECT count(*) {where}", parameters)
        first = self.link.rows(f"SELECT d.id {where} ORDER BY d.id LIMIT ?", (*parameters, limit))
        return Held(0 if many is None else int(many[0]), tuple(row[0] for row in first))


class ProtocolWriting(ProtocolReading):
    def set_spoken(self, spoken: Mapping[int, Spoken]) -> None:
        self.link.many(
            "INSERT INTO device_protocol (device_key, protocol, highest_version) VALUES (?, ?, ?) "
            "ON CONFLICT (device_key) DO UPDATE SET protocol = excluded.protocol, "
            "highest_version = excluded.highest_version",
            [(key, each.protocol.value, each.highest_version) for key, each in sorted(spoken.items())],
        )
