"""The words of this program, each with its one meaning: what ``wave help WORD`` says, and ``docs/glossary.md``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from orchestrator.core.states import ROLLOUT_MEANING, WAVE_MEANING, RolloutStatus, WaveStatus

GLOSSARY: Final[Mapping[str, str]] = {
    "accept": (
        "say by name and with a reason that a finding shall not stop the rollout; begins a new attempt after a halt"
    ),
    "admitted": "given an offer",
    "allowance": "a chance of being wrong, shared out over monitors: `false_halt`",
    "amber": (
        "a monitor with a fifth or more of the evidence that halts; slows slices and offers to a trickle and "
        "keeps the bake door shut until confirmations calm it"
    ),
    "applied": "of an update: written, waiting for the reboot. Of a rollout: bound to its files",
    "attempt": "a rollout from its start, or from an accepted resume, to the next halt",
    "bad": (
        "of a device: its update failed, was rolled back, was ignored, could not be downloaded, or it fell silent; "
        "each of these has its own tolerance"
    ),
    "bake": "the watching of a wave after its devices have the offer",
    "budget": "a number of bad devices that stops the rollout; checked first",
    "approve": "give the word that the policy asks of another person than who wrote or started the rollout",
    "artifact": "a whole file for devices that take files; its sha256 is the commit of a Target that is this file",
    "check-in": "a device asks, and says what it runs",
    "checkpoint": "a moment after the start of installing at which the clock looks whether a device was heard of",
    "clock": (
        "the test for silence by what earlier rollouts teach; also the time a device has had since it began to install"
    ),
    "cohort": "devices of one hardware id that began to install within one minute: the clock counts by them",
    "commit": "the content address of what a device runs (OSTree: 64 hex digits)",
    "complete": "end as generally available: devices of the tag are offered the Target, newcomers too",
    "confirmed": "runs the Target and has said so by a check-in",
    "crossed": "of a monitor: it has so many bad devices among so few places that it acts; left by a person only",
    "delta": "what turns one commit into another; **required deltas**: those a wave's devices need",
    "delta provider": (
        "what knows about content: commits, deltas, building, verifying. There are two: OSTree, and files"
    ),
    "destination": "where messages to people go, by a name; its address stands in a file of its own",
    "device": "one machine in the field, by stable id (hawkBit calls it a target)",
    "device group": "a set of devices kept by a person; a device is in one or in none",
    "download failed": "of an update: the device could not fetch the content",
    "eligible": (
        "follows the tag, has hardware the version exists for, does not run it or a newer one, is neither "
        "held nor retired"
    ),
    "door": "what a wave needs to pass: time, outcomes, confirmations, and no evidence against it",
    "epoch": "a number of the rollout that grows with every stop and every start",
    "error code": "what a device says beside a failure; a policy can count some of them in a class of its own",
    "event": "one item of a report",
    "evidence log": "every event as it was received, without a chain",
    "excluded": "of a segment: left out of offers, monitors and doors, by its own monitor or by a person",
    "failed": "of an update: it could not be installed, or does not work",
    "fallback object": "an object that is too large for a delta and is fetched beside it",
    "freeze": "stop all offers of all rollouts",
    "gateway": "the HTTP side that devices talk to",
    "gate": "a Prometheus, a webhook or a program that is asked before a wave opens: yes, no or not yet",
    "halt": "the safety stop; left only by a person",
    "hardware id": "the compatibility string; a Target has one or more, a device one",
    "held": "waiting for a person: a rollout, a wave or a device",
    "ignored": "came back three times after the offer without starting, or said that it will not",
    "journal": "the append-only, hash-chained record of decisions and orders, one chain per rollout",
    "label": "a key and a value on a device",
    "left": "runs something that is neither the old nor the new commit: no outcome, shown",
    "limit": "of a monitor: the k-th bad device makes it act if it is among so many first places",
    "monitor": "one counter of evidence: an outcome class over the whole rollout, one wave or one segment",
    "offer": "the answer to a check-in that names a Target",
    "outcome": "what an update came to",
    "pace": (
        "how fast offers are given: devices under way at once, in all, by label or by evidence, and offers in a time"
    ),
    "place": "a device's rank by position in the slices opened so far, in the rollout and in its wave",
    "plan": "of a command: what a rollout would do. In the code: what one look decided",
    "policy": "the file that says what is tolerated; a copy is bound to the rollout",
    "position": "a device's fixed point in [0, 1) for one wave of a rollout, from a salted hash",
    "promote": "let a wave open that waits for a person",
    "reachable": "seen within `reach`",
    "replay": "make every recorded decision again, from the journal and the evidence log",
    "report": "the message in which a device tells what it did",
    "retry": "one more try for devices with a bad outcome; places and outcomes stay",
    "rolled back": "of an update: the device has gone back to what it ran before",
    "rollout": "one Target to the devices of one tag under one policy",
    "segment": "devices alike in one way: a hardware id, the version they come from, a value of a label",
    "silent": "admitted, and no outcome within the policy's time",
    "skip": "let what comes after a wave go on without it",
    "simulate": "play a policy over a virtual fleet with the real rules, many times",
    "slice": "the next stretch of positions of an open wave, at most as large as all before it",
    "stake": "how many failures the pace by evidence puts at risk at once: 20 by `pace: evidence`",
    "staircase": (
        "the limits of a monitor as steps: 3 in 8, 4 in 19 says that the third bad device halts if it is among the "
        "first 8 places, the fourth among the first 19"
    ),
    "started": "its first report was received, or it was seen running the Target",
    "supersede": "cancel another live rollout by starting this one",
    "success band": "between which shares of success the truth lies, at 95 % however often one looks",
    "tag": "the line a device follows; a Target carries tags",
    "Target": "the software a device should run: name, version, content commit, hardware ids, tags",
    "tick": "one pass of load, decide and apply",
    "tolerance": "the probability of one bad outcome that is still acceptable",
    "untouched": "of the rollout's tag, and without an update in it",
    "update": "one device's attempt at one rollout",
    "wave": "one stage of a rollout (Foundries.io calls the whole signed release a wave)",
    "window": "days and hours at which something may happen",
    "withdrawn": "an offer that was taken back before its device started, or whose device stopped when it was told to",
}
"""As a table has it: two stars stand around words that are explained within another's meaning."""


def words() -> tuple[str, ...]:
    """Every word that is explained, by the alphabet."""
    return tuple(sorted({*GLOSSARY, *(each.value for each in (*RolloutStatus, *WaveStatus))}, key=str.lower))


def explained(word: str) -> tuple[tuple[str, str], ...]:
    """What a word means, and where: empty where it means one thing. Nothing for a word that is none. Capitals do not
    matter."""
    wanted = word.lower()
    found = [("", meaning.replace("**", "")) for known, meaning in GLOSSARY.items() if known.lower() == wanted]
    if wanted in set(RolloutStatus):
        found.append(("Of a rollout", ROLLOUT_MEANING[RolloutStatus(wanted)]))
    if wanted in set(WaveStatus):
        found.append(("Of a wave", WAVE_MEANING[WaveStatus(wanted)]))
    return tuple(found)
