"""A real Triton loads a version that was added by the command, and nothing that was changed since gets as far as Triton."""

import shutil
import socket
import subprocess
import time

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from serving_stack.models_add import add_shipped
from serving_stack.models_settings import ModelsSettings
from serving_stack.repository import verify
from serving_stack.repository_gc import remove
from serving_stack.repository_signing import signer
from serving_stack.triton import replica_process
from trimtab.errors import TrimtabError

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """`store/` with a signed version 1, and the public key in `trusted/`."""
    folder = tmp_path_factory.mktemp("models")
    key = Ed25519PrivateKey.generate()
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (folder / "key.pem").chmod(0o600)
    (folder / "trusted").mkdir()
    (folder / "trusted" / "key.pem").write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    add_shipped(folder / "store", "intent", 1, 2, signer=signer(folder / "key.pem"))
    return folder


def plan(shop, store, folder):
    sockets = [socket.socket() for _ in range(2)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    http, metrics = (s.getsockname()[1] for s in sockets)
    for s in sockets:
        s.close()
    believed = ModelsSettings(trusted_keys=shop / "trusted", require_signature=True)
    return replica_process(store, "intent", 1, folder, http_port=http, metrics_port=metrics, signatures=believed)


def flip_a_byte(folder):
    weights = folder / "model.onnx"
    weights.chmod(0o644)
    with weights.open("r+b") as file:
        file.seek(weights.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))


def unsign(folder):
    (folder / "manifest.sig").unlink()


def cut_off(folder):
    (folder / "model.onnx").chmod(0o644)
    with (folder / "model.onnx").open("r+b") as file:
        file.truncate(1_000_000)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (flip_a_byte, "model.onnx is not the file that was published: its SHA-256 is another"),
        (cut_off, "model.onnx is not the file that was published: truncated, 1000000 bytes instead of"),
        (unsign, "is not signed, and here a signature is required"),
    ],
)
def test_a_version_that_is_not_what_was_signed_never_reaches_triton(shop, tmp_path, damage, words):
    shutil.copytree(shop / "store", tmp_path / "store")
    damage(tmp_path / "store" / "intent" / "1")
    replica = plan(shop, tmp_path / "store", tmp_path / "intent-v1-1")
    done = subprocess.run(replica.argv, env=replica.env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.startswith("trimtab: version 1 of intent is refused: ")
    assert words in done.stderr
    assert done.stdout == "", "Triton did not begin"


def test_an_intact_version_is_served_and_is_in_use_meanwhile(shop, tmp_path):
    replica = plan(shop, shop / "store", tmp_path / "intent-v1-2")
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(replica.argv, env=replica.env, stdout=log, stderr=subprocess.STDOUT)
    try:
        while not ready(replica):
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.1)
        tensor = {"name": "text", "datatype": "BYTES", "shape": [1, 1], "data": ["How do I change my PIN?"]}
        answer = httpx.post(replica.infer_url, json={"inputs": [tensor]}, timeout=60).raise_for_status().json()
        assert answer["outputs"][0]["data"] == ["change_pin"]
        with pytest.raises(TrimtabError, match="is served now"):
            remove(shop / "store", "intent", 1)
    finally:
        process.terminate()
        process.wait(60)
        replica.clean_up()
    verify(shop / "store", "intent", 1)  # serving wrote nothing into it
    shutil.copytree(shop / "store", tmp_path / "copy")
    remove(tmp_path / "copy", "intent", 1)


def ready(replica):
    try:
        return httpx.get(replica.ready_url, timeout=5).status_code == 200
    except httpx.TransportError:
        return False
