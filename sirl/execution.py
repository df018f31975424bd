"""Who runs the shards of a stage: this process, or actors of a Ray cluster that is there already.

An engine opens a worker (models and all) where it computes, hands it one shard at a time, and gives
back what came of it in the order in which shards end. Shards and their results do not depend on
where they ran, so every engine writes the same bytes.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal, Protocol, TypeVar

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from sirl.errors import MissingPackageError, ServiceError
from sirl.models import resolve_device
from sirl.spec import Spec

CONNECT_SECONDS = 5.0

Item = TypeVar("Item")
Item_contra = TypeVar("Item_contra", contravariant=True)
Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


class Work(Protocol[Item_contra, Result_co]):
    """What is to be done with items. It travels to other machines: plain data."""

    def open(self) -> Callable[[Item_contra], Result_co]:
        """Loads what is needed, once a worker."""
        ...


class LocalEngine(Spec):
    """One worker, in this process."""

    engine: Literal["local"] = "local"

    def device(self, wanted: Literal["auto", "cpu", "cuda"]) -> str:
        """The device that workers compute on."""
        return resolve_device(wanted)

    def map(self, work: Work[Item, Result], items: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
        """Streams items with their results; opens nothing where there are none."""
        if items:
            run = work.open()
            yield from ((item, run(item)) for item in items)


class _Worker:
    """An actor: it opens its work once and runs it on one item at a time. It opens it with the
    first: what is wrong then is the error of a call, where Ray would have lost its kind."""

    def __init__(self, work: Work[Any, Any]) -> None:
        self._work = work
        self._run: Callable[[Any], Any] | None = None

    def run(self, number: int, item: Any) -> tuple[int, Any]:
        self._run = self._run or self._work.open()
        return number, self._run(item)


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    """The `ray` package, connected to a cluster."""
    try:
        import ray
    except ImportError:
        raise MissingPackageError("ray", "execution.engine: ray") from None
    try:
        if address != "auto":  # Ray itself would knock for minutes
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        raise ServiceError(
            f"there is no Ray cluster at execution.address {address}: {error}",
            "Start one: ray start --head",
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


class RayEngine(Spec):
    """One worker an actor, on a running Ray cluster.

    Its nodes have this project's worker environment and see the project's folder at the same path.
    An actor whose node dies is started again elsewhere, and its shard is run again.
    """

    engine: Literal["ray"]
    address: str = "auto"
    """`auto` is the cluster this machine belongs to; else `host:port` of its head."""
    actors: PositiveInt = 1
    cpus: PositiveFloat = 1.0
    """CPUs of one actor."""
    gpus: NonNegativeFloat = 0.0
    """GPUs of one actor."""

    def device(self, wanted: Literal["auto", "cpu", "cuda"]) -> str:
        """The device that workers compute on: a GPU if each is given one."""
        return "cuda" if self.gpus else "cpu"

    def map(self, work: Work[Item, Result], items: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
        """See `LocalEngine.map`.

        Raises:
            MissingPackageError: Ray is not installed.
            ServiceError: There is no such cluster.
        """
        if not items:
            return
        with _connected(self.address) as ray:
            from ray.util import ActorPool

            remote = ray.remote(
                num_cpus=self.cpus, num_gpus=self.gpus, max_restarts=-1, max_task_retries=-1
            )
            actor = remote(_Worker)
            pool: Any = ActorPool([actor.remote(work) for _ in range(min(self.actors, len(items)))])
            for number, item in enumerate(items):
                pool.submit(lambda one, value: one.run.remote(*value), (number, item))
            while pool.has_next():
                try:
                    number, result = pool.get_next_unordered()
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from None
                yield items[number], result
                # An idle actor holds what one that waits to be started again may need.
                while pool.pop_idle():
                    pass


ExecutionSpec = Annotated[LocalEngine | RayEngine, Field(discriminator="engine")]
