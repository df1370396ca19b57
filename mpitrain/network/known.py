"""The names of the networks that come with the package, without what builds them: for the
completion of words, which imports neither NumPy nor OpenCL."""

NAMES = (
    "lenet",
    *(f"vgg{depth}" for depth in (11, 13, 16, 19)),
    *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
    "alexnet",
    *(f"densenet{depth}" for depth in (121, 169, 201)),
    "mobilenetv2",
)
"""As in `network/models`, in its order."""
