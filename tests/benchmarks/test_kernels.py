"""Kernels of a trace are added up, and the layers around them are not."""

from __future__ import annotations

from typing import Any

import kernels


def span(name: str, ts: float, dur: float, tid: int = 3, pid: int = 0) -> dict[str, Any]:
    return {"ph": "X", "name": name, "ts": ts, "dur": dur, "tid": tid, "pid": pid}


def row(name: str, tid: int, pid: int = 0) -> dict[str, Any]:
    args = {"name": name}
    return {"ph": "M", "name": "thread_name", "args": args, "tid": tid, "pid": pid}


TRACE = {
    "otherData": {"network": "lenet", "steps": [3, 4]},
    "traceEvents": [
        row("main thread", 1),
        row("device", 3),
        row("device, second queue", 4),
        row("device", 3, pid=1),
        span("step 3", 0, 1000, tid=1),
        span("conv1 forward", 0, 100),
        span("pack", 0, 40),
        span("correlate", 50, 50),
        span("relu1 forward", 110, 10),
        span("relu_forward", 110, 10),
        span("update", 200, 30, tid=4),
        span("conv1 forward", 300, 60),
        span("correlate", 300, 60),
        span("correlate", 0, 9999, pid=1),
    ],
}


def test_a_step_has_the_mean_of_its_kernels_on_every_queue() -> None:
    columns = [list(column.cells) for column in kernels.table(TRACE, 0).columns]
    assert list(zip(*columns, strict=True)) == [
        ("correlate", "1", "0.055", "57.9%", "55.0"),
        ("pack", "0.5", "0.020", "21.1%", "40.0"),
        ("update", "0.5", "0.015", "15.8%", "30.0"),
        ("relu_forward", "0.5", "0.005", "5.3%", "10.0"),
    ]
