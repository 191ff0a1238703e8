"""Maps a list of scenes on Dask workers that Slurm starts: python dask_jobqueue_slurm.py scenes.txt /shared/maps.

Needs geocfl[dask] and dask-jobqueue, here and on the nodes. Workers come and go with the queue; a scene whose worker is
gone resumes on another.
"""

from __future__ import annotations

import sys

from dask_jobqueue import SLURMCluster

import geocfl


def cluster() -> SLURMCluster:
    """Workers of two threads, for which geocfl divides the cores of a node, in jobs of four cores and four hours."""
    return SLURMCluster(
        cores=2,
        processes=1,
        memory="8GB",
        job_cpu=4,
        walltime="04:00:00",
        # A worker leaves before its job ends, so that the scheduler does not take it for dead.
        worker_extra_args=["--lifetime", "3h50m", "--lifetime-stagger", "5m"],
        job_extra_directives=["--signal=TERM@60"],
    )


def main() -> None:
    """Maps the scenes of a list, with up to a hundred workers."""
    scenes, out = sys.argv[1:]
    with cluster() as workers:
        workers.adapt(minimum=1, maximum=100)
        tally = geocfl.Tally()
        for path, result in geocfl.map_scenes(list_file=scenes, out=out, scheduler=workers.scheduler_address):
            print(tally.add(path, result), path, flush=True)
        print(tally.table())
        sys.exit(tally.exit_code())


if __name__ == "__main__":
    main()
