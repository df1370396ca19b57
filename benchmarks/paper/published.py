"""The figures that the paper's text has, as it has them."""

from __future__ import annotations

TABLE1 = (
    ("Firefox", "Sushi2 with WebCL", (15.6, 12.8, 33.6, 62.4)),
    ("node.js", "Sushi2 with WebCL", (4.0, 14.0, 3.8, 5.2)),
    ("node.js", "Sushi2, JavaScript alone", (1.8, 26.4, 2.0, 1891.0)),
    ("node.js", "Sylvester", (38.0, 52.4, 3.2, 7102.8)),
    ("node.js", "Math.js", (53.8, 679.2, 19.8, 57588.6)),
)
"""Where, library, and milliseconds of the four tasks."""
TABLE3 = (
    ("Firefox", "ConvNetJS", {"lenet": (64, 64)}),
    ("node.js", "ConvNetJS", {"lenet": (88, 64)}),
    ("Firefox", "Sukiyaki2 with WebCL", {"lenet": (107, 64)}),
    ("node.js", "Sukiyaki2 with WebCL", {"lenet": (4770, 64)}),
)
"""Where, software, and of each network images/s and the batch."""
TABLE4 = (
    ("FirePro S9170", "Sukiyaki2, Firefox", {"vgg16": (4.0, 32), "resnet152": (1.4, 32)}),
    ("FirePro S9170", "Sukiyaki2, node.js", {"vgg16": (5.7, 32), "resnet152": (6.5, 32)}),
    ("FirePro S9170", "Caffe of AMD, OpenCL", {"vgg16": (7.7, 32)}),
    ("FirePro S9170", "Caffe of BVLC, OpenCL", {"vgg16": (5.3, 32), "resnet152": (1.6, 32)}),
    ("K80", "Sukiyaki2, Firefox", {"vgg16": (2.7, 16), "resnet152": (0.2, 8)}),
    ("K80", "Sukiyaki2, node.js", {"vgg16": (4.9, 16), "resnet152": (2.7, 8)}),
    ("K80", "Caffe, OpenCL", {"vgg16": (3.2, 16), "resnet152": (1.5, 8)}),
    ("K80", "Caffe, CUDA", {"vgg16": (11.9, 16), "resnet152": (8.5, 8)}),
    ("K80", "Caffe, cuDNN", {"vgg16": (14.4, 16), "resnet152": (9.4, 8)}),
)
"""As TABLE3, with a GPU as the place."""
TABLE5 = (
    ("conv1_1", 802816, 64, 27),
    ("conv1_2", 802816, 64, 576),
    ("conv2_1", 200704, 128, 576),
    ("conv2_2", 200704, 128, 1152),
    ("conv3_1", 50176, 256, 1152),
    ("conv3_2, 3_3", 50176, 256, 2304),
    ("conv4_1", 12544, 512, 2304),
    ("conv4_2, 4_3", 12544, 512, 4608),
    ("conv5_1 to 5_3", 3136, 512, 4608),
)
"""VGG16's convolutions at batch 16 as matrix products: M (images x pixels), N (filters), K
(channels x 9). The text has no times for them."""
SECONDS = {8: 29.0}
"""Figure 6 right: seconds a step of VGG16 by clients, where the text has them."""
PROJECTED = (
    ("devices of 1/10 of a K80", 10, 1, 16, 100.0),
    ("and a tenth of the bytes", 10, 10, 64, 31.0),
)
"""Beyond what was measured: what is assumed, slowdown and further compression, clients, seconds a
step."""
