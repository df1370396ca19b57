"""Remember which of several ways to compute something was fastest on a device: one file a platform,
version and device.

The file is JSON beside the cached programs. It is written to a temporary name and renamed, so ranks
of a host may share it; one that cannot be read is deleted, and what it knew is found again by
`mpitrain tune`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from mpitrain.runtime.platforms import cache_folder, write_atomically

FORMAT = 1


class TunedChoices:
    """What was measured on one device: for a problem ("forward 64x56x56 ..."), a size (images), and
    a number of cores."""

    def __init__(self, identity: str, units: int) -> None:
        """identity: platform, version, device and driver; units: the compute units that this
        process may use."""
        key = hashlib.sha256(identity.encode()).hexdigest()[:16]
        self.path = cache_folder() / "tuned" / f"{key}.json"
        self._identity, self._units = identity, units
        self._found = self._read()

    def _read(self) -> dict[str, list[dict[str, Any]]]:
        try:
            content = json.loads(self.path.read_bytes())
            if content["format"] != FORMAT or content["device"] != self._identity:
                raise ValueError("written for something else")
            problems: dict[str, list[dict[str, Any]]] = content["problems"]
            for entries in problems.values():
                for each in entries:
                    if not (
                        each["size"] > 0 and each["units"] > 0 and isinstance(each["choice"], str)
                    ):
                        raise ValueError("numbers must be positive, and the choice a name")
            return problems
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            with contextlib.suppress(OSError):
                self.path.unlink()
            return {}

    def choice(self, problem: str, size: int) -> str | None:
        """The fastest way as it was measured at the nearest size and number of cores; None where
        nothing was."""
        entry = self.entry(problem, size)
        return entry["choice"] if entry else None

    def knows(self, problem: str, size: int) -> bool:
        """Whether it was measured at this very size and number of cores."""
        entry = self.entry(problem, size)
        return entry is not None and (entry["size"], entry["units"]) == (size, self._units)

    def entry(self, problem: str, size: int) -> dict[str, Any] | None:
        """What was measured at the nearest size and number of cores: choice and measured."""

        def distance(entry: Mapping[str, Any]) -> float:
            units = abs(math.log(entry["units"] / self._units))
            return abs(math.log(entry["size"] / size)) + units

        entries = self._found.get(problem)
        return min(entries, key=distance) if entries else None

    def keep(self, problem: str, size: int, choice: str, measured: Mapping[str, Any]) -> None:
        """Write down a choice and what it rests on, beside all that others have written
        meanwhile."""
        self._found = self._read()
        units = self._units
        entries = [
            each
            for each in self._found.get(problem, [])
            if (each["size"], each["units"]) != (size, units)
        ]
        entries.append({"size": size, "units": units, "choice": choice, "measured": dict(measured)})
        self._found[problem] = entries
        content = {"format": FORMAT, "device": self._identity, "problems": self._found}
        write_atomically(self.path, json.dumps(content, indent=1).encode())
