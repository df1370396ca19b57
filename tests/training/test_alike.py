"""Ranks whose network files differ are told so, on every rank."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mpitrain.job.errors import UserError
from mpitrain.mpi.connect import connect
from mpitrain.network import models
from mpitrain.training.alike import check_networks

pytestmark = pytest.mark.mpi


def test_a_network_that_differs_on_one_rank_is_refused_on_all() -> None:
    wire, network = connect(), models.load("lenet")
    check_networks(network, "lenet", wire)
    last = wire.ranks.size - 1
    if last == 0:
        return
    other = replace(network, name="other") if wire.ranks.rank == last else network
    with pytest.raises(UserError, match=f"not the same network .* on rank 0, .* on rank {last}$"):
        check_networks(other, "net.toml", wire)
