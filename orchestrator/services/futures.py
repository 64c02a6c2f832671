"""Work that goes on when a commit is there: futures of threads, one after another."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")
Other = TypeVar("Other")


def then(first: Future[Other], work: Callable[[Other], Result]) -> Future[Result]:
    """A future of what ``work`` makes of the first one's result; of the first one's error where there is none."""
    done: Future[Result] = Future()
    pass_on(first, done, work)
    return done


def pass_on(first: Future[Other], done: Future[Result], work: Callable[[Other], Result]) -> None:
    """The same into a future that somebody holds already."""

    def finish(future: Future[Other]) -> None:
        try:
            result = work(future.result())
        except Exception as error:
            done.set_exception(error)
        else:
            done.set_result(result)

    first.add_done_callback(finish)


def chain(first: Future[Other], work: Callable[[Other], Result | Future[Result]]) -> Future[Result]:
    """As ``then``, for work that may itself have to wait."""
    done: Future[Result] = Future()

    def finish(future: Future[Other]) -> None:
        try:
            found = work(future.result())
        except Exception as error:
            done.set_exception(error)
            return
        if isinstance(found, Future):
            pass_on(found, done, lambda result: result)
        else:
            done.set_result(found)

    first.add_done_callback(finish)
    return done
