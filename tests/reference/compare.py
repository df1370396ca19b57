"""Judge gradients by a stored summary of PyTorch's in float64: norms, projections and samples
instead of all values.

A tensor of n values is summed up by its norm, its dot products with 8 fixed vectors of +-1, and 64
of its values. An error e adds to each dot product a number of mean square |e|^2, so their root mean
square is an estimate of |e| to about 25 % that no kind of error escapes; the samples say the same
of single values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from inputs import generator, images, labels, weights

PROJECTIONS = 8
SAMPLES = 64
NOTHING = 1e-6
"""Norm, in that of the largest, of a gradient whose terms cancel."""
FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Summary:
    """What is kept of one gradient."""

    shape: tuple[int, ...]
    norm: float
    projections: np.ndarray
    """float64 (8,)"""
    samples: np.ndarray
    """float64 (64,), drawn with replacement"""


@dataclass(frozen=True)
class Reference:
    """One step of a network in PyTorch, float64: inputs from inputs.py, sums over the batch."""

    network: str
    loss: float
    scores: np.ndarray
    """float64 (N, classes)"""
    gradients: dict[str, Summary]
    """In PyTorch's order."""
    float32_error: float
    """The worst relative error of PyTorch's own float32 step against this one: what to expect of
    float32."""

    def weights(self) -> dict[str, np.ndarray]:
        """The weights that the step starts from, float32, by name."""
        return weights(
            self.network, {name: summary.shape for name, summary in self.gradients.items()}
        )

    def images(self) -> np.ndarray:
        """float32 (N, C, H, W)"""
        return images(self.network)

    def labels(self) -> np.ndarray:
        """int64 (N,)"""
        return labels(self.network)

    def error(self, name: str, gradient: np.ndarray) -> float:
        """Estimated relative error of one gradient: the worst of what norm, projections and samples
        say."""
        summary = self.gradients[name]
        if gradient.shape != summary.shape:
            raise ValueError(
                f"{name}: the gradient has shape {gradient.shape}, the reference {summary.shape}"
            )
        given = summarise(name, gradient)
        size = gradient.size
        norm = max(summary.norm, self._least(summary.norm))
        # A sparse gradient may have sampled zeros only; the norm says how large samples are on
        # average.
        sampled = max(float(np.linalg.norm(summary.samples)), norm * np.sqrt(SAMPLES / size))
        errors = (
            abs(given.norm - summary.norm) / norm,
            float(np.linalg.norm(given.projections - summary.projections))
            / np.sqrt(PROJECTIONS)
            / norm,
            float(np.linalg.norm(given.samples - summary.samples)) / sampled,
        )
        return float("inf") if np.isnan(errors).any() else max(errors)

    def _least(self, norm: float) -> float:
        """What a gradient's error is measured by at least. Where its terms cancel (of a bias or a
        scale that the next normalisation takes away), its norm does not say how large they are:
        the other gradients' do."""
        norms = sorted(summary.norm for summary in self.gradients.values())
        nothing = norm < NOTHING * norms[-1]
        return norms[len(norms) // 2] if nothing else float(np.finfo(np.float64).tiny)

    def errors(self, gradients: Mapping[str, np.ndarray]) -> dict[str, float]:
        """The estimated relative error of every parameter; raises ValueError if the names are not
        the reference's."""
        if gradients.keys() != self.gradients.keys():
            raise ValueError(
                f"{self.network}: only one has {sorted(gradients.keys() ^ self.gradients.keys())}"
            )
        return {name: self.error(name, gradients[name]) for name in self.gradients}

    def worst_error(self, gradients: Mapping[str, np.ndarray]) -> tuple[str, float]:
        """The parameter that is farthest off, and its estimated relative error."""
        errors = self.errors(gradients)
        name = max(errors, key=errors.__getitem__)
        return name, errors[name]


def summarise(name: str, gradient: np.ndarray) -> Summary:
    """Norm, projections and samples of one gradient, which the name decides."""
    values = np.asarray(gradient, dtype=np.float64).ravel()
    random = generator(f"{name}/summary")
    chosen = values[random.integers(0, values.size, SAMPLES)]
    bits = random.integers(
        0, 256, values.size, dtype=np.uint8
    )  # bit k of a byte is the sign in projection k
    total = values.sum()
    plus = np.array([values @ ((bits >> k) & 1) for k in range(PROJECTIONS)])
    return Summary(np.shape(gradient), float(np.linalg.norm(values)), 2 * plus - total, chosen)


def fingerprint(*arrays: np.ndarray) -> np.ndarray:
    """Sums of each array's values and of their squares: the same where NumPy draws the same
    numbers."""
    return np.array(
        [(a.sum(dtype=np.float64), np.square(a, dtype=np.float64).sum()) for a in arrays]
    )


def save(reference: Reference) -> Path:
    """Write NETWORK.npz beside this file."""
    path = FOLDER / f"{reference.network}.npz"
    summaries = reference.gradients.values()
    np.savez_compressed(
        path,
        loss=reference.loss,
        scores=reference.scores,
        float32_error=reference.float32_error,
        names=np.array(list(reference.gradients)),
        shapes=np.array([" ".join(map(str, summary.shape)) for summary in summaries]),
        norms=np.array([summary.norm for summary in summaries]),
        projections=np.array([summary.projections for summary in summaries]),
        samples=np.array([summary.samples for summary in summaries]),
        inputs=fingerprint(reference.images(), reference.labels(), *reference.weights().values()),
    )
    return path


def reference(network: str) -> Reference:
    """The stored step of lenet, vgg11 or resnet18. Raises RuntimeError if the inputs made here are
    not those it saw."""
    with np.load(FOLDER / f"{network}.npz") as stored:
        shapes = (tuple(map(int, text.split())) for text in stored["shapes"])
        rows = zip(
            stored["names"],
            shapes,
            stored["norms"],
            stored["projections"],
            stored["samples"],
            strict=True,
        )
        gradients = {
            str(name): Summary(shape, float(norm), p, s) for name, shape, norm, p, s in rows
        }
        step = Reference(
            network,
            float(stored["loss"]),
            stored["scores"],
            gradients,
            float(stored["float32_error"]),
        )
        made = fingerprint(step.images(), step.labels(), *step.weights().values())
        if not np.allclose(made, stored["inputs"], rtol=1e-6, atol=1e-3):
            raise RuntimeError(
                f"{network}: NumPy draws other inputs here than where the reference was made"
            )
    return step


def worst_error(network: str, gradients: Mapping[str, np.ndarray]) -> tuple[str, float]:
    """Of one gradient a parameter, the one that is farthest off, and its estimated relative
    error."""
    return reference(network).worst_error(gradients)
