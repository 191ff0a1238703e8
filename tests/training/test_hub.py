"""From the download of initial weights to the first epoch, with a stand-in for the hub on loopback."""

from __future__ import annotations

import io
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from safetensors.torch import save

from geocfl.models.backbones import build_network
from geocfl.models.network import read_weights

pytestmark = pytest.mark.integration

TRAIN = """
import sys
import geocfl.models.graph_file
geocfl.models.graph_file.write_graph = lambda model: None  # takes longer than the training
from geocfl.cli import app
app(sys.argv[1:])
"""
TORCHGEO, TIMM = "resnet18_sentinel2_rgb_moco", "/timm/resnet18"


class Hub(ThreadingHTTPServer):
    """Serves the weights of a network for the addresses of torchgeo (by HTTPS, as a proxy) and timm (by HTTP)."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.tls = tls
        self.asked: list[str] = []
        torch.manual_seed(5)
        self.weights = {name: value.clone() for name, value in build_network("resnet18", 3, 1000).state_dict().items()}
        buffer = io.BytesIO()
        torch.save(self.weights, buffer)
        self.files = {TORCHGEO: buffer.getvalue(), TIMM: save(self.weights)}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_CONNECT(self) -> None:
        """Answers for whatever host it is asked to connect to."""
        self.send_response(200)
        self.end_headers()
        self.connection = self.server.tls.wrap_socket(self.connection, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)
        self.handle_one_request()
        self.close_connection = True

    def do_HEAD(self) -> None:
        self.answer(head=True)

    def do_GET(self) -> None:
        self.answer(head=False)

    def answer(self, head: bool) -> None:
        self.server.asked.append(self.path)
        content = next((content for name, content in self.server.files.items() if name in self.path), None)
        if content is None or "/resolve/" not in self.path or self.path.endswith(".json"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", '"5"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        if not head:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate of hf.co, signed by itself."""
    file = tmp_path_factory.mktemp("tls") / "hf.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=hf.co"]
    command += ["-addext", "subjectAltName=DNS:hf.co,DNS:huggingface.co", "-keyout", str(file), "-out", str(file) + "c"]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs openssl")
    return file


@pytest.fixture
def hub(certificate: Path) -> Iterator[Hub]:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(str(certificate) + "c", certificate)
    server = Hub(tls)
    Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def train(data: Path, folder: Path, weights: list[str], settings: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Trains a ResNet-18 for an epoch with a learning rate that changes no weight visibly."""
    proxies = {"https_proxy", "http_proxy", "all_proxy", "no_proxy"}
    usual = {name: value for name, value in os.environ.items() if name.lower() not in proxies}
    caches = {"TORCH_HOME": str(folder / "torch"), "HF_HOME": str(folder / "hf")}
    command = [sys.executable, "-c", TRAIN, "train", "--data", str(data), "--split", "random:0.5", *weights]
    command += ["--epochs", "1", "--batch-size", "8", "--lr", "1e-12", "--device", "cpu", "--out", str(folder / "run")]
    return subprocess.run(
        command, env={**usual, **caches, **settings}, capture_output=True, text=True, check=False, timeout=600
    )


@pytest.mark.parametrize(
    ("weights", "name"), [([], TORCHGEO), (["--weights", "imagenet"], TIMM)], ids=["torchgeo", "timm"]
)
def test_a_training_starts_from_weights_that_it_downloads(hub, certificate, write_patches, tmp_path, weights, name):
    settings = {"HF_ENDPOINT": hub.address}
    if name == TORCHGEO:
        settings = {"https_proxy": hub.address, "SSL_CERT_FILE": str(certificate) + "c"}
    done = train(write_patches(tmp_path / "data"), tmp_path, weights, settings)
    assert done.returncode == 0, done.stderr
    assert any(name in path for path in hub.asked)
    trained = read_weights(tmp_path / "run" / "model.safetensors")
    for layer in ("conv1.weight", "layer4.1.conv2.weight"):
        torch.testing.assert_close(trained[layer].float(), hub.weights[layer], atol=1e-3, rtol=1e-3)
    assert len((tmp_path / "run" / "history.csv").read_text().splitlines()) == 2


@pytest.mark.parametrize("weights", [[], ["--weights", "imagenet"]], ids=["torchgeo", "timm"])
def test_without_a_connection_it_ends_in_one_sentence(write_patches, tmp_path, weights):
    nowhere = "http://127.0.0.1:9"
    settings = {"https_proxy": nowhere, "http_proxy": nowhere, "HF_ENDPOINT": nowhere}
    done = train(write_patches(tmp_path / "data"), tmp_path, weights, settings)
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if "cannot be downloaded" in line]
    assert len(said) == 1
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
