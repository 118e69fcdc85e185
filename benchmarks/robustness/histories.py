"""Jepsen-style histories of many processes at one registry, checked against the ledger.

Processes are paused and killed at random. In most histories they take turns at the calls of
MLflow's client (interleaving.py), so that a seed determines the history; in the rest, signals stop
and kill real processes (processes.py). Each history is of one model, on SQLite or PostgreSQL.
"""

from __future__ import annotations

import logging
import multiprocessing
import random
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.robustness.forks import find_tests
from benchmarks.robustness.interleaving import Player, play
from benchmarks.robustness.tally import Tally

VERSIONS = 3
KEYS = ("key-a", "key-b")
RULES = {
    "alias": "the alias is not the ledger's last word",
    "moves": "a move lost or made twice",
    "judged": "a move judged against a stale champion",
    "keys": "two versions or two runs of one key",
    "ended": "an operation ended in an error that is none of ours",
}


TURNS, SIGNALS = 940, 60  # histories of each kind


def campaign(quick: bool) -> list[Tally]:
    """Half of them on SQLite, half on PostgreSQL, where there is one."""
    turns, signals = (6, 2) if quick else (TURNS, SIGNALS)
    with registries() as uris, tempfile.TemporaryDirectory() as store:
        jobs = [(uris[seed % len(uris)], store, seed) for seed in range(turns)]
        context = multiprocessing.get_context("spawn")
        with context.Pool(2) as pool:
            broken = list(pool.imap_unordered(_interleaved, jobs, chunksize=10))
        from benchmarks.robustness.processes import with_signals, workers

        with workers() as team:
            for seed in range(turns, turns + signals):
                place = HistoryModel(uris[seed % len(uris)], Path(store), f"history-{seed}")
                broken.append((seed, with_signals(team, place, seed)))
    said = (
        f"histories of {len(uris)} kinds of registry ({turns} interleaved by a seed, "
        f"{signals} of stopped and killed processes)"
    )
    return [
        Tally(
            said,
            turns + signals,
            words,
            [f"seed {seed}" for seed, rules in sorted(broken) if rule in rules],
        )
        for rule, words in RULES.items()
    ]


@contextmanager
def registries() -> Iterator[list[str]]:
    """Addresses of empty registries: SQLite, and PostgreSQL where its binaries are."""
    find_tests()
    from postgres import find_binaries, running

    with tempfile.TemporaryDirectory() as directory:
        uris = [f"sqlite:///{directory}/mlflow.db"]
        binaries = find_binaries()
        if binaries is None:
            _make(uris, Path(directory))
            yield uris
            return
        with running(binaries) as server:
            uris.append(f"postgresql+psycopg2://{server.make_database()}")
            _make(uris, Path(directory))
            yield uris


def _make(uris: Sequence[str], store: Path) -> None:
    """Create MLflow's tables in a separate process: the parent of forks must open no database."""
    from tasks.lifecycle.registry import connect

    for uri in uris:
        maker = multiprocessing.get_context("spawn").Process(
            target=connect, args=(uri, store, "first")
        )
        maker.start()
        maker.join()


def _interleaved(job: tuple[str, str, int]) -> tuple[int, list[str]]:
    uri, store, seed = job
    logging.disable(logging.INFO)
    return seed, interleaved(HistoryModel(uri, Path(store), f"history-{seed}"), seed)


@dataclass
class Wish:
    """What somebody wants: the same idempotency key, however often it is tried.

    answers  what each attempt was told: 'done', 'refused', or nothing where it was killed
    """

    kind: str
    value: Any
    key: str
    answers: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class HistoryModel:
    """One history's model in a registry."""

    uri: str
    store: Path
    name: str

    def connect(self) -> tuple[Any, str]:
        from tasks.lifecycle.registry import connect

        return connect(self.uri, self.store, self.name)

    def make(self) -> None:
        client, _ = self.connect()
        client.create_registered_model(self.name)
        for number in range(VERSIONS):
            client.create_model_version(self.name, source=(self.store / str(number)).as_uri())

    def ledger(self, client: Any, who: str) -> Any:
        from tasks.lifecycle.ledger import Ledger

        return Ledger(client, self.name, self.store / f"{self.name}-{who}.jsonl")


def attempt(place: HistoryModel, wish: Wish, who: str, client: Any, experiment: str) -> str:
    """Try to bring a wish about, as the commands do; 'done' or 'refused'."""
    from tasks.core.errors import GateError
    from tasks.lifecycle.decisions import Decision
    from tasks.lifecycle.ledger import champion_history

    if wish.kind == "register":
        register(place, wish, client, experiment)
        return "done"
    ledger = place.ledger(client, who)
    decisions = ledger.decisions()
    if any(
        decision.id == wish.key for decision in decisions
    ):  # an attempt that was killed came so far
        return "done"
    champion = ledger.champion()
    if wish.kind == "refuse":
        ledger.record(Decision("refused", wish.value, champion, "tested", id=wish.key))
        return "done"
    if wish.kind == "roll back":
        earlier = champion_history(decisions).champions[:-1]
        if not earlier or earlier[-1] == champion:
            return "refused"
        decision = Decision("rolled back", earlier[-1], champion, "tested", id=wish.key)
    else:
        if champion == wish.value:
            return "refused"
        decision = Decision(
            "promoted", wish.value, champion, "tested", id=wish.key, high_water=wish.value
        )
    try:
        ledger.move(decision)
    except GateError:
        return "refused"
    return "done"


def register(place: HistoryModel, wish: Wish, client: Any, experiment: str) -> None:
    """The steps of tasks.registration that touch the registry."""
    from tasks.lifecycle.registry import (
        CONTENT_KEY,
        claim_run,
        find_version,
        keep_one_run,
        keep_one_version,
        run_id_of,
    )

    version = find_version(client, place.name, wish.value, {})
    if version is None:
        run = claim_run(client, experiment, wish.value, place.name).info.run_id
        client.create_model_version(
            place.name,
            source=(place.store / "new").as_uri(),
            run_id=run,
            tags={CONTENT_KEY: wish.value},
        )
        version = keep_one_version(client, place.name, wish.value)
    keep_one_run(client, experiment, wish.value, run_id_of(version))


def wishes(draw: random.Random, count: int) -> list[Wish]:
    """What is wanted in one history: mostly moves."""
    found = []
    for number in range(count):
        kind = draw.choices(("promote", "roll back", "refuse", "register"), (6, 3, 1, 2))[0]
        value = draw.choice(KEYS) if kind == "register" else draw.randint(1, VERSIONS)
        found.append(Wish(kind, value, f"{number}-{draw.getrandbits(64):016x}"))
    return found


def check(place: HistoryModel, wanted: Sequence[Wish]) -> list[str]:
    """The rules that a history broke, once every process has ended.

    Readers repair what killed processes left, so this check does too.
    """
    from tasks.lifecycle.alias import read_alias
    from tasks.lifecycle.ledger import champion_history
    from tasks.lifecycle.registry import (
        CONTENT_KEY,
        find_version,
        keep_one_run,
        run_id_of,
        versions,
    )

    client, experiment = place.connect()
    decisions = place.ledger(client, "checker").decisions()
    moves = sorted(
        (decision for decision in decisions if decision.move),
        key=lambda decision: decision.move or 0,
    )
    broken = []
    last = moves[-1].version if moves else None
    if read_alias(client, place.name).version != last or champion_history(decisions).champions[
        -1:
    ] != ([last] if moves else []):
        broken.append("alias")
    times = Counter(decision.id for decision in decisions)
    lost = [
        wish
        for wish in wanted
        if wish.kind != "register" and "done" in wish.answers and times[wish.key] != 1
    ]
    untrue = [wish for wish in wanted if wish.answers[-1:] == ["refused"] and times[wish.key]]
    if (
        lost
        or untrue
        or max(times.values(), default=1) > 1
        or [move.move for move in moves] != list(range(1, len(moves) + 1))
    ):
        broken.append("moves")
    if [move.previous for move in moves] != [None, *(move.version for move in moves)][: len(moves)]:
        broken.append("judged")
    for key in {wish.value for wish in wanted if wish.kind == "register"}:
        version = find_version(client, place.name, key, {})
        if version is not None:
            keep_one_run(client, experiment, key, run_id_of(version))
        runs = client.search_runs([experiment], f"tags.`{CONTENT_KEY}` = '{key}'")
        found = [one for one in versions(client, place.name) if one.tags.get(CONTENT_KEY) == key]
        acknowledged = any(wish.value == key and "done" in wish.answers for wish in wanted)
        if (
            len(found) > 1
            or (found and [run.info.run_id for run in runs] != [found[0].run_id])
            or (acknowledged and not found)
        ):
            broken.append("keys")
    return broken


def interleaved(place: HistoryModel, seed: int) -> list[str]:
    """The rules that the history of a seed broke."""
    draw = random.Random(seed)
    place.make()
    client, experiment = place.connect()
    wanted = wishes(draw, draw.randint(2, 4))

    def work(wish: Wish, who: str, player: Any) -> None:
        wish.answers.append("")
        wish.answers[-1] = attempt(place, wish, who, player, experiment)

    players = [
        Player(partial(work, wish, str(number % 3)), client) for number, wish in enumerate(wanted)
    ]
    readers = [
        Player(lambda player: place.ledger(player, "reader").decisions(), client)
        for _ in range(draw.randint(0, 1))
    ]
    play([*players, *readers], draw, kills=True)
    again = [Player(partial(work, wish, "again"), client) for wish in wanted if "" in wish.answers]
    play(again, draw, kills=False)  # a command that was killed is repeated
    errors = [player.error for player in [*players, *readers, *again] if player.error]
    return [*check(place, wanted), *["ended"] * bool(errors)]
