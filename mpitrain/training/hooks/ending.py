"""The end of a run: every rank's weights are compared by their hashes, and the log is closed with
an `end`."""

from __future__ import annotations

import resource
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mpitrain.job import slurm
from mpitrain.job.errors import DONE, STOPPED, RunError, agreed

if TYPE_CHECKING:
    from mpitrain.training.plan import Plan, Progress
    from mpitrain.training.world import World


class Ending:
    """Runs once, after the last step."""

    name = "ending"

    def __init__(self, plan: Plan) -> None:
        self._plan, self._begin = plan, time.perf_counter()

    def due(self, progress: Progress) -> bool:
        return self._plan.is_over(progress)

    def run(self, world: World, progress: Progress) -> Progress:
        """Raises RunError on every rank if ranks hold different weights."""
        plan, local, t = world.plan, world.local, progress.step
        seconds = time.perf_counter() - self._begin
        local.watch.at("end", t)
        code = DONE if plan.is_done(progress) else STOPPED
        hashes = tuple(world.wire.agree.gather_facts(world.state.sha256()))
        same = len(set(hashes)) == 1
        memory = sum(world.wire.agree.gather_facts(_peak(world.wire.ranks.local_rank == 0)))
        own = 0 if local.device.shares_memory else local.device.allocated
        on_devices = sum(world.wire.agree.gather_facts(own))
        images = (t - plan.begun) * plan.batch_size
        local.log.event(
            "end",
            step=t,
            seconds=round(seconds, 3),
            images_per_second=round(images / seconds, 1),
            weights_sha256=list(hashes),
            peak_memory=memory,
            device_memory=on_devices,
            exit=code if same else RunError.exit_code,
            job=slurm.job(),
            restarts=slurm.restarts(),
        )
        if not same:
            short = ", ".join(each[:8] for each in hashes)
            raise agreed(RunError(f"step {t}: ranks hold different weights: {short}"))
        how = "done:" if code == DONE else "stopped by a signal at"
        local.display.say(
            f"{how} step {t}, {seconds:.1f} s, all ranks hold the same weights (sha256 "
            f"{hashes[0][:12]}), "
            f"peak memory of all ranks {memory / 2**30:.2f} GiB"
            + (f" and {on_devices / 2**30:.2f} GiB of devices" if on_devices else "")
            + f", run in {plan.folder}"
        )
        return replace(progress, hashes=hashes)


def _peak(counts_shared: bool) -> int:
    """Bytes of this process's memory at their most; without what it shares with the other ranks of
    its host, unless it is the one to count that."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    status = Path("/proc/self/status")
    if counts_shared or not status.exists():
        return peak
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return max(0, peak - 1024 * int(lines.get("RssShmem", "0 kB").split()[0]))
