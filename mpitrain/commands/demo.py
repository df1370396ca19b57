"""`mpitrain demo CHECKPOINT`: a page on this machine to draw a digit, open an image or look through
the camera, and to see what the network takes it for."""

from __future__ import annotations

import io
import json
import string
import threading
import webbrowser
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mpitrain.job.errors import UserError
from mpitrain.network.model import Model, load

HOST = "127.0.0.1"
"""Other machines cannot reach the page."""
LARGEST = 32 << 20
"""Bytes of an image that is accepted."""
MOST_CLASSES = 10
"""Shown for an image."""
DIGIT, SHEET = 20, 28
"""As in MNIST: a digit fits into 20 x 20 pixels, and its centre of mass is that of 28 x 28."""


def serve(
    checkpoint: Path, device: str, port: int, opens: bool, say: Callable[[str], None]
) -> None:
    """Serve the page until Ctrl-C. port: 0 for any that is free. opens: also open a browser."""
    model = load(checkpoint, device, capacity=1)
    try:
        server = make_server(model, port)
    except OSError as error:
        raise UserError(f"--port {port}: {error.strerror}") from error
    address = f"http://{HOST}:{server.server_address[1]}/"
    say(f"{model.network.name} is at {address} (Ctrl-C ends it)")
    if opens:
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        say("")
    finally:
        server.server_close()


def make_server(model: Model, port: int) -> ThreadingHTTPServer:
    """A server of the page and of answers, not yet running."""
    lock = threading.Lock()

    class Handler(_Handler):
        def classes(self, image: NDArray[np.uint8]) -> list[dict[str, Any]]:
            with lock:  # one queue, one image at a time
                probabilities = model.predict(image[None])[0]
            best = model.best(probabilities, MOST_CLASSES)
            return [{"name": name, "probability": share} for name, share in best]

        def look(self, file: IO[bytes]) -> NDArray[np.uint8]:
            return model.look(file)

    c, h, w = model.network.input_shape
    Handler.shape, Handler.content = (c, h, w), page(model).encode()
    return ThreadingHTTPServer((HOST, port), Handler)


def page(model: Model) -> str:
    """The page's HTML."""
    c, h, w = model.network.input_shape
    text = (files("mpitrain.commands") / "demo.html").read_text()
    about = (
        f"{len(model.class_names) or model.network.classes} classes, images of {w} x {h} pixels, "
        f"{'grey; draw into the square' if c == 1 else 'in colour'}. Nothing leaves this machine."
    )
    return string.Template(text).substitute(
        network=model.network.name, about=about, draws=json.dumps(c == 1)
    )


def centred(drawn: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """A drawing (h, w) of light strokes as a grey image (1, height, width), scaled and centred as
    MNIST's digits are."""
    rows, columns = np.nonzero(drawn > 0)
    if not rows.size:
        return np.zeros((1, height, width), np.uint8)
    box = drawn[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    scale = min(height, width) / SHEET * DIGIT / max(box.shape)
    size = [max(1, round(extent * scale)) for extent in (box.shape[1], box.shape[0])]
    small = np.asarray(
        Image.fromarray(box).resize((size[0], size[1]), Image.Resampling.BOX), np.float64
    )
    weight = max(small.sum(), 1e-9)
    middle = [
        (small.sum(axis=1 - axis) * (np.arange(small.shape[axis]) + 0.5)).sum() / weight
        for axis in (0, 1)
    ]
    top, left = (
        int(np.clip(round(whole / 2 - centre), 0, whole - extent))
        for whole, centre, extent in zip((height, width), middle, small.shape, strict=True)
    )
    sheet = np.zeros((1, height, width), np.uint8)
    sheet[0, top : top + small.shape[0], left : left + small.shape[1]] = np.rint(small)
    return sheet


class _Handler(BaseHTTPRequestHandler):
    """The page on GET /; the classes of an image file on POST /image, of a drawing on POST
    /drawn."""

    shape: tuple[int, int, int]
    content: bytes

    def classes(self, image: NDArray[np.uint8]) -> list[dict[str, Any]]:
        """Names and probabilities of an image (C, H, W), best first."""
        raise NotImplementedError

    def look(self, file: IO[bytes]) -> NDArray[np.uint8]:
        """An image file as the network sees it, (C, H, W)."""
        raise NotImplementedError

    def do_GET(self) -> None:
        if self.path != "/":
            self.send_error(404)
            return
        self._send(200, self.content, "text/html; charset=utf-8")

    def do_POST(self) -> None:
        if self.path not in ("/image", "/drawn"):
            self.send_error(404)
            return
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > LARGEST:
            self.close_connection = True
            self._answer(413, {"error": f"an image of at most {LARGEST >> 20} MiB is expected"})
            return
        body = self.rfile.read(int(length))
        try:
            self._answer(200, {"classes": self.classes(self._image(body))})
        except UserError:
            self._answer(400, {"error": "this cannot be decoded; an image file is expected"})

    def _image(self, body: bytes) -> NDArray[np.uint8]:
        if self.path == "/drawn" and self.shape[0] == 1:
            try:
                with Image.open(io.BytesIO(body), formats=["PNG"]) as image:
                    return centred(np.asarray(image.convert("L"), np.uint8), *self.shape[1:])
            except Exception as error:  # Pillow's decoders raise nearly anything
                raise UserError(str(error)) from error
        return self.look(io.BytesIO(body))

    def _answer(self, code: int, content: dict[str, Any]) -> None:
        self._send(code, json.dumps(content).encode(), "application/json")

    def _send(self, code: int, content: bytes, kind: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the page says what is wrong."""
