"""The demo's page: drawn digits are read, bad bodies are told, and a real browser shows it without
an error."""

from __future__ import annotations

import http.client
import io
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from launcher import Ended
from PIL import Image

from mpitrain.commands.demo import HOST, LARGEST, centred, make_server
from mpitrain.data.digits import DIGITS
from mpitrain.network.model import load

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def port(digits_run: Ended) -> Iterator[int]:
    assert digits_run.folder is not None
    server = make_server(load(digits_run.folder, "cpu", capacity=1), 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


def post(port: int, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection(HOST, port, timeout=30)
    connection.request("POST", path, body)
    answer = connection.getresponse()
    found = json.loads(answer.read()) if answer.status != 404 else {}
    connection.close()
    return answer.status, found


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def drawn(digit: np.ndarray, seed: int) -> np.ndarray:
    """A digit (28, 28) as somebody may draw it: of some size, anywhere on a pad of 280 x 280."""
    random = np.random.default_rng(seed)
    side = int(random.integers(120, 240))
    large = np.asarray(Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC))
    pad = np.zeros((280, 280), np.uint8)
    top, left = random.integers(0, 281 - side, 2)
    pad[top : top + side, left : left + side] = np.where(large > 40, large, 0)
    return pad


def test_digits_of_any_size_and_place_are_read(port: int) -> None:
    with np.load(DIGITS) as found:
        images, labels = found["test_images"].reshape(-1, 28, 28), found["test_labels"]
    right = 0
    for nth in range(60):
        code, answer = post(port, "/drawn", png(drawn(images[nth], nth)))
        assert code == 200
        shares = [each["probability"] for each in answer["classes"]]
        assert shares == sorted(shares, reverse=True) and abs(sum(shares) - 1) < 1e-4
        right += answer["classes"][0]["name"] == str(labels[nth])
    assert right >= 54


def test_a_drawing_is_centred_by_its_mass() -> None:
    pad = np.zeros((280, 280), np.uint8)
    pad[10:210, 200:220] = 255
    sheet = centred(pad, 28, 28)[0]
    rows, columns = np.nonzero(sheet)
    assert (rows.min(), rows.max()) == (4, 23) and (columns.min(), columns.max()) == (13, 14)
    assert centred(np.zeros((9, 9), np.uint8), 28, 28).sum() == 0
    assert centred(np.full((1, 1), 255, np.uint8), 5, 90).shape == (1, 5, 90)


def test_what_is_no_image_is_told(port: int) -> None:
    for path in ("/image", "/drawn"):
        assert post(port, path, b"no image") == (
            400, {"error": "this cannot be decoded; an image file is expected"}
        )  # fmt: skip
    assert post(port, "/image", b"")[0] == 400
    assert post(port, "/elsewhere", b"")[0] == 404
    connection = http.client.HTTPConnection(HOST, port, timeout=30)
    connection.putrequest("POST", "/image")
    connection.putheader("Content-Length", str(LARGEST + 1))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium")
def test_a_browser_shows_what_the_first_drawing_is(port: int, tmp_path: Path) -> None:
    ended = subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
            f"--user-data-dir={tmp_path}", "--virtual-time-budget=5000", "--dump-dom",
            f"http://{HOST}:{port}/",
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert '<div class="row best">' in ended.stdout, ended.stdout
    best = ended.stdout.partition('<div class="row best">')[2].partition("</div>")[0]
    assert 'title="7"' in best, best
    assert "CONSOLE" not in ended.stderr, ended.stderr
