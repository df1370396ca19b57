"""Go on without ranks that have died: a World in, a smaller World out."""

from __future__ import annotations

from collections.abc import Mapping

from mpitrain.job.errors import RunError, agreed
from mpitrain.mpi.survive import among_the_living, give_up
from mpitrain.mpi.wait import FAILURES
from mpitrain.runtime.array import Array
from mpitrain.training.join import introduce
from mpitrain.training.plan import Progress
from mpitrain.training.world import World, make_world


def recover(world: World, progress: Progress, error: Exception) -> tuple[World, Progress]:
    """Shrink to the ranks that are alive, and take up what was going on where rank 0 has it.

    Raises agreed errors, which end the job, if rank 0 is dead or nobody is.
    """
    recovery = _Recovery(world, progress)
    while True:
        try:
            return recovery.attempt(error)
        except FAILURES as again:  # one more has died meanwhile
            error = again


class _Recovery:
    """What is kept from one attempt to the next."""

    def __init__(self, world: World, progress: Progress) -> None:
        self._world, self._progress = world, progress
        self._wire, self._exchange = world.wire, world.exchange
        self._held: tuple[Mapping[str, Array], tuple[int, int]] | None = None
        """State to go on from, and coder_index and coder_count when it was made."""

    def attempt(self, error: Exception) -> tuple[World, Progress]:
        """One try; raises one of FAILURES when a further rank dies in it."""
        before, local, plan, undo = (
            self._world,
            self._world.local,
            self._world.plan,
            self._world.undo,
        )
        assert undo is not None
        coder = self._exchange.coder_index, self._exchange.coder_count
        local.watch.at("shrink", self._progress.step)
        give_up(self._wire)
        self._exchange.close()
        local.device.finish()
        local.device.beside().finish()
        self._wire = wire = among_the_living(self._wire)
        introduce(wire, local.several_hosts)
        ranks = list(wire.ranks.numbers)
        if ranks[0] != 0:
            raise agreed(
                RunError(
                    f"step {self._progress.step}: rank 0 is dead, which holds weights and data; "
                    "--resume goes on from its checkpoint"
                )
            )
        lost = sorted(set(before.wire.ranks.numbers) - set(ranks))
        if not lost:  # nothing that fewer ranks would mend
            raise agreed(RunError(str(error))) from error
        mine = self._progress
        self._progress = progress = mine.as_first_rank(wire.agree.from_root(mine.as_json))
        # What this rank had before the first death is what counts.
        self._held = held, coder = self._held or (undo.held(progress.step), coder)
        before.feed.close()
        world = make_world(plan, local, wire)
        self._exchange = world.exchange
        undo.restore(held, world.sgd if wire.ranks.rank == 0 else None)
        local.device.finish()
        replicated = world.sgd is not None and plan.run.update == "replicated"
        velocity = [world.sgd.velocity] if world.sgd and replicated else []
        # Not all may have heard the last step's end, and so taken up its weights.
        average = local.average.vectors if local.average else []
        # With --strict the next step's bits depend on them; else each rank has its own.
        statistics = [local.graph.statistics] if plan.run.strict else []
        world.state.spread(local.graph.weights, *velocity, *average, *statistics)
        undo.hand_on(held, world.exchange, coder, plan.batch_size, progress.step)
        local.log.event("lost", step=progress.step, ranks=lost, left=wire.ranks.size)
        local.display.say(
            f"step {progress.step}: rank{'s' * (len(lost) > 1)} {', '.join(map(str, lost))} lost; "
            f"{wire.ranks.size} of the ranks go{'es' * (wire.ranks.size == 1)} on from here, on "
            "the same batches "
            "(--on-failure continue)"
        )
        return world, progress
