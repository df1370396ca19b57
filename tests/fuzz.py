"""A fuzzer that sees which branches of mpitrain it reaches: `python tests/fuzz.py TARGET SECONDS
[FOLDER]`, with `pip install '.[fuzz]'`.

It begins with the good bytes of a target of hostile.py, and with what an earlier run has kept in
FOLDER, and keeps there what reaches something new. What is raised but MpitrainError ends it with a
traceback, and leaves its bytes in FOLDER as crash-*; so does what asks for too much memory or time.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["mpitrain", "tomllib", "zipfile"]):
    import hostile

MOST_RESIDENT, LONGEST = 1024, 10
"""MiB and seconds for one input."""
LEAKY = 3072
"""MiB for messages: atheris keeps 3 KiB of each (the same calls without it stay at 46 MiB)."""


def main(kind: str, seconds: str, kept: str) -> None:
    warnings.simplefilter("ignore")  # Pillow's, about odd images
    resource.setrlimit(resource.RLIMIT_AS, (hostile.MOST_MEMORY, hostile.MOST_MEMORY))
    corpus = Path(kept) / kind
    corpus.mkdir(parents=True, exist_ok=True)
    for number, good in enumerate(hostile.TARGETS[kind].good()):
        hostile.TARGETS[kind].take(
            good, Path(tempfile.mkdtemp())
        )  # or the fuzzer would never come far
        (corpus / f"good-{number}").write_bytes(good)
    folder = Path(tempfile.mkdtemp())
    limits = [
        f"-max_total_time={seconds}",
        f"-rss_limit_mb={LEAKY if kind in ('message', 'rows') else MOST_RESIDENT}",
        f"-timeout={LONGEST}",
        "-max_len=16384",
    ]
    atheris.Setup(
        [
            sys.argv[0],
            str(corpus),
            f"-artifact_prefix={kept}/{kind}-",
            "-print_final_stats=1",
            *limits,
        ],
        lambda data: hostile.refuses(kind, data, folder) and None,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else tempfile.mkdtemp())
