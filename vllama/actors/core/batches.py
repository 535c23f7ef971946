"""What instances and worker processes say about tickets that are handed out ahead of the requests that will need them.

A batch is the right to admit `count` requests on the engine of one run; its tickets are the asks numbered from `batch` on. An
unused one is not in flight. While a batch is out the instance may not go down: it is recalled first.
"""

from vllama.actors.core.facts import fact


@fact
class Lend:
    """A worker would admit so many requests by itself."""

    batch: int
    count: int


@fact
class Report:
    """What a worker has done with batches: requests admitted (ask, the id that its answer carries), and requests ended."""

    admitted: tuple[tuple[int, str], ...]
    ended: tuple[int, ...]


@fact
class BatchBack:
    """A batch is used up, given back or its worker is dead. All that was admitted on it has been reported."""

    batch: int


@fact
class GiveBatch:
    """Effect: the worker may use the batch from now on, on the engine of `run`. A count of 0: there is none."""

    batch: int
    count: int
    run: int


@fact
class Recall:
    """Effect: these batches admit nothing more; BatchBack follows for each."""

    batches: tuple[int, ...]


BatchMessage = Lend | Report | BatchBack
