"""Connects to a Dask scheduler, or starts workers on this machine."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from distributed import Client, LocalCluster

from geocfl.errors import UsageError
from geocfl.mapping.mapper import SCENES_AT_ONCE, Mapper

log = logging.getLogger("geocfl")

PATIENCE = 30.0
"""Seconds to wait for a scheduler, for its first worker, and for either to come back."""
GPU = "GPU"
"""Dask resource of a worker that classifies on a GPU; a task takes a part of it, so that `SCENES_AT_ONCE` share one."""


@contextmanager
def connected(scheduler: str | None, workers: int, mapper: Mapper) -> Iterator[Client]:
    """A client of the scheduler, or of a local cluster that lasts as long as the block."""
    if scheduler:
        try:
            client = Client(scheduler, timeout=PATIENCE, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            raise UsageError(
                f"`scheduler` {scheduler}: no Dask scheduler answers there; start one with dask scheduler, or correct "
                "the address, such as tcp://10.0.0.1:8786"
            ) from error
        with client:
            log.info("%s: dashboard at %s", scheduler, client.dashboard_link)
            yield client
        return
    resources = {GPU: 1} if mapper.device.startswith("cuda") else None
    with (
        LocalCluster(
            n_workers=workers,
            threads_per_worker=SCENES_AT_ONCE,
            dashboard_address="localhost:0",
            resources=resources,
            silence_logs=logging.ERROR,
        ) as cluster,
        Client(cluster, timeout=PATIENCE, set_as_default=False) as client,
    ):
        log.info("%d workers on this machine; dashboard at %s", workers, client.dashboard_link)
        yield client


def wait_for_workers(client: Client) -> None:
    """Waits for the first worker of a scheduler.

    Raises:
        UsageError: There is none.
    """
    try:
        client.wait_for_workers(1, timeout=PATIENCE)
    except (TimeoutError, OSError) as error:
        raise UsageError(
            "the scheduler has no workers; start some with dask worker ADDRESS --nthreads 2, then run the same "
            "command again"
        ) from error
