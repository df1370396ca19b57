"""Make mpitrain/data/digits.npz from scikit-learn's copy of the UCI handwritten digits.

    python tests/data/make_digits.py mpitrain/data/digits.npz

It needs scikit-learn, numpy and Pillow.

The 8x8 counts of 0 .. 16 become grey values 0 .. 255, are scaled to 20x20 (bicubic) and put in the
middle of 28x28, the form MNIST's digits have. One in five of each class (360 in all) is drawn for
the test set with a fixed seed; both sets are then shuffled. These 1,797 come from 13 writers, and
the two sets share writers: the test accuracy says that training works, not how well strangers'
digits are read. Written with scikit-learn 1.9.1, Pillow 12.0.0 and numpy 2.4; the same versions
write the same arrays (their SHA-256 is in test_digits.py).
"""

import sys

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits


def make():
    """The arrays of digits.npz by name."""
    source = load_digits()
    small = np.round(source.images * 255 / 16).astype(np.uint8)
    images = np.zeros((len(small), 1, 28, 28), np.uint8)
    for image, grey in zip(images[:, 0], small, strict=True):
        image[4:24, 4:24] = np.asarray(
            Image.fromarray(grey).resize((20, 20), Image.Resampling.BICUBIC)
        )
    labels = source.target.astype(np.int64)
    generator = np.random.Generator(np.random.PCG64(0))
    shuffled = generator.permutation(len(labels))
    by_class = [shuffled[labels[shuffled] == digit] for digit in range(10)]
    quotas = np.array([len(members) / len(labels) * 360 for members in by_class])
    counts = quotas.astype(int)
    counts[np.argsort(counts - quotas, kind="stable")[: 360 - counts.sum()]] += 1
    test = np.isin(
        shuffled,
        np.concatenate([members[:count] for members, count in zip(by_class, counts, strict=True)]),
    )
    train, test = shuffled[~test], shuffled[test]
    return {
        "images": images[train],
        "labels": labels[train],
        "test_images": images[test],
        "test_labels": labels[test],
    }


if __name__ == "__main__":
    np.savez_compressed(sys.argv[1], **make())
