"""What a trained network sees in image files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mpitrain.data.folder import decode
from mpitrain.job.plain import plain
from mpitrain.network.model import load


def predict_files(
    checkpoint: Path, files: Sequence[Path], top: int, device: str, as_json: bool
) -> None:
    """Print the `top` classes and probabilities of each image file, best first."""
    model = load(checkpoint, device, capacity=min(64, len(files)))
    c, h, w = model.network.input_shape
    images = np.stack([decode(file, (c, h, w)) for file in files])
    for file, probabilities in zip(files, model.predict(images), strict=True):
        best = np.argsort(-probabilities, kind="stable")[:top]
        found = [
            (
                model.class_names[k] if k < len(model.class_names) else str(k),
                float(probabilities[k]),
            )
            for k in best
        ]
        if as_json:
            print(
                json.dumps(
                    {
                        "image": str(file),
                        "classes": [{"class": name, "probability": p} for name, p in found],
                    }
                )
            )
        else:
            print(plain(f"{file}: " + ", ".join(f"{name} {p:.1%}" for name, p in found)))
