"""The plain way, as the rival: FastAPI, SQLModel, one session and one commit a request. Used by ``gateway_rates``.

It does what ours does, no more: the token is checked by its digest, a check-in notes what the device runs and when it
was seen and looks for an offer, an event is stored once, moves its update on and is counted.
"""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException
from pydantic import BaseModel
from sqlalchemy import Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry
from sqlmodel import Field, Session, SQLModel, create_engine, select

STEPS = ["offered", "downloading", "installing", "applied"]


class Machine(SQLModel, table=True):
    __tablename__ = "plain_device"
    id: str = Field(primary_key=True)
    token: bytes
    tag: str
    hardware_id: str
    running: str | None = None
    version: int | None = None
    seen_at: datetime | None = None


class Attempt(SQLModel, table=True):
    __tablename__ = "plain_update"
    device: str = Field(primary_key=True)
    rollout: str = Field(primary_key=True)
    status: str = "offered"


class Logged(SQLModel, table=True):
    __tablename__ = "plain_event"
    device: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    rollout: str
    kind: str
    received_at: datetime


class Tally(SQLModel, table=True):
    __tablename__ = "plain_tally"
    rollout: str = Field(primary_key=True)
    kind: str = Field(primary_key=True)
    number: int = 0


class Asked(BaseModel):
    commit: str | None
    version: int | None
    hardware_id: str
    tag: str
    labels: dict[str, str] = {}


class Item(BaseModel):
    id: str
    rollout: str
    target: int
    event: str
    at: str | None = None


class Told(BaseModel):
    events: list[Item]


def open_engine(path: str) -> Engine:
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 30, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def as_ours(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        # the same safety as ours: WAL, and a commit is on the disk
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.close()

    SQLModel.metadata.create_all(engine)
    return engine


def fill(path: str, tokens: dict[str, str], *, offered: bool) -> None:
    with Session(open_engine(path)) as session:
        for name, token in tokens.items():
            digest = hashlib.sha256(token.encode()).digest()
            session.add(Machine(id=name, token=digest, tag="promoted", hardware_id="rpi4"))
            if offered:
                session.add(Attempt(device=name, rollout="lmp-42"))
        for kind in STEPS:
            session.add(Tally(rollout="lmp-42", kind=kind))
        session.commit()


def make_app(path: str) -> FastAPI:
    engine = open_engine(path)
    app = FastAPI()

    def session() -> Iterator[Session]:
        with Session(engine) as open_session:
            yield open_session

    def device(
        name: str, opened: Annotated[Session, Depends(session)], authorization: Annotated[str, Header()]
    ) -> Machine:
        found = opened.get(Machine, name)
        digest = hashlib.sha256(authorization.removeprefix("Bearer ").encode()).digest()
        if found is None or found.token != digest:
            raise HTTPException(401)
        return found

    @app.post("/v1/devices/{name}/check-in")
    def check_in(
        asked: Asked, found: Annotated[Machine, Depends(device)], opened: Annotated[Session, Depends(session)]
    ) -> dict[str, object]:
        found.running, found.version, found.seen_at = asked.commit, asked.version, datetime.now(UTC)
        offer = opened.exec(select(Attempt).where(Attempt.device == found.id, Attempt.status == "offered")).first()
        answer: dict[str, object] = {
            "offer": None if offer is None else {"rollout": offer.rollout},
            "check_in_after": 300.0,
        }
        opened.add(found)
        opened.commit()
        return answer

    @app.post("/v1/devices/{name}/reports")
    def reports(
        told: Told, found: Annotated[Machine, Depends(device)], opened: Annotated[Session, Depends(session)]
    ) -> dict[str, object]:
        accepted = duplicates = 0
        for item in told.events:
            if opened.get(Logged, (found.id, item.id)) is not None:
                duplicates += 1
                continue
            now = datetime.now(UTC)
            opened.add(Logged(device=found.id, id=item.id, rollout=item.rollout, kind=item.event, received_at=now))
            attempt = opened.get(Attempt, (found.id, item.rollout))
            if attempt is not None and STEPS.index(item.event) > STEPS.index(attempt.status):
                attempt.status = item.event
                tally = opened.get(Tally, (item.rollout, item.event))
                assert tally is not None
                tally.number = Tally.number + 1
                opened.add(tally)
            accepted += 1
        opened.commit()
        return {"accepted": accepted, "duplicates": duplicates, "refused": []}

    return app
