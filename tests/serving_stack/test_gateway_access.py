"""Tokens and TLS, on the real Envoy, and how their files become part of the state."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from serving_stack.gateway import GatewayPool, GatewayState, Token, render, write
from serving_stack.gateway.settings import GatewaySettings, tls_in, tokens_in, with_settings
from trimtab.errors import SettingsError

STATE = GatewayState(fleet="intent", listen_port=1, admin_port=2)


def make_certificate(folder: Path, name: str) -> None:
    """A certificate for 127.0.0.1 that signed itself, as tls.crt and tls.key; both appear at once, as a Secret's files do."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    half = folder / f".{name}"
    half.mkdir(parents=True)
    (half / "tls.crt").write_bytes(made.public_bytes(Encoding.PEM))
    (half / "tls.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    for file in ("tls.crt", "tls.key"):
        (half / file).replace(folder / file)


@pytest.mark.integration
def test_who_has_no_token_is_told_so_and_reaches_nobody(gateway: Callable[..., Any], upstream: Any) -> None:
    async def scene() -> None:
        a = upstream(1)
        pool = GatewayPool(version=1, role="stable", weight=100, endpoints=(a.at,))
        async with gateway(pool, upstreams=(a,), tokens=(Token("first-secret"), Token("other-secret"))) as g:

            async def ask(said: str | None, path: str = "/v2/models/intent/infer") -> tuple[int, Any, Any]:
                headers = {"Authorization": said} if said is not None else {}
                async with g.session.post(g.url + path, data=b"{}", headers=headers) as response:
                    return response.status, await response.json(), response.headers.get("www-authenticate")

            for wrong in (None, "Bearer wrong", "Bearer ", "Bearer first-secret2", "Basic Zmlyc3Qtc2VjcmV0"):
                status, body, how = await ask(wrong)
                assert (status, how) == (401, "Bearer"), wrong
                assert "error" in body
            assert (await ask(None, "/v2/repository/models/intent/load"))[0] == 401
            assert a.asked == 0
            async with g.session.get(g.url + "/v2/health/ready") as probe:
                assert probe.status == 200  # a probe carries no secret
            assert (await ask("Bearer first-secret"))[0] == (await ask("Bearer other-secret"))[0] == 200
            assert "Authorization" not in a.headers  # the replicas need not know it
            # A new token is taken over without a restart, and the old one is worth nothing from then on.
            g.state = msgspec.structs.replace(g.state, tokens=(Token("new-secret"),))
            g.give(pool)
            await g.until(lambda: _answers(ask, "Bearer new-secret", 200))
            assert (await ask("Bearer first-secret"))[0] == 401

    asyncio.run(scene())


async def _answers(ask: Callable[..., Any], said: str, wanted: int) -> bool:
    return bool((await ask(said))[0] == wanted)


@pytest.mark.integration
def test_over_tls_and_a_renewed_certificate_needs_no_restart(gateway: Callable[..., Any], upstream: Any, tmp_path: Path) -> None:
    access = tmp_path / "access"
    make_certificate(access, "first")

    async def shows(url: str, name: str) -> bool:
        """Whether the server shows the certificate that is in the folder now, which is called so."""
        trusting = ssl.create_default_context(cafile=access / "tls.crt")
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]), ssl=trusting)
        except ssl.SSLError:
            return False
        shown = writer.get_extra_info("peercert")["subject"]
        writer.close()
        return await _post(url, trusting) == 200 and shown == (((("commonName", name),),))

    async def scene() -> None:
        a = upstream(1)
        pool = GatewayPool(version=1, role="stable", weight=100, endpoints=(a.at,))
        async with gateway(pool, upstreams=(a,), tls=tls_in(access)) as g:
            assert g.url.startswith("https://")
            assert await shows(g.url, "first")
            with pytest.raises(aiohttp.ClientError):
                async with g.session.post(g.url.replace("https", "http")):
                    pass
            make_certificate(access, "second")
            await g.until(lambda: shows(g.url, "second"))

    asyncio.run(scene())


@pytest.mark.integration
def test_where_clients_must_show_a_certificate_nobody_comes_without(
    gateway: Callable[..., Any], upstream: Any, tmp_path: Path
) -> None:
    server, client = tmp_path / "access", tmp_path / "client"
    make_certificate(server, "server")
    make_certificate(client, "client")
    (server / "ca.crt").write_bytes((client / "tls.crt").read_bytes())

    async def scene() -> None:
        a = upstream(1)
        pool = GatewayPool(version=1, role="stable", weight=100, endpoints=(a.at,))
        async with gateway(pool, upstreams=(a,), tls=tls_in(server)) as g:
            bare = ssl.create_default_context(cafile=server / "tls.crt")
            with pytest.raises(aiohttp.ClientError):
                await _post(g.url, bare)
            bare.load_cert_chain(client / "tls.crt", client / "tls.key")
            assert await _post(g.url, bare) == 200

    asyncio.run(scene())


async def _post(url: str, how: ssl.SSLContext) -> int:
    async with aiohttp.ClientSession() as session, session.post(f"{url}/v2/models/intent/infer", ssl=how) as response:
        return response.status


def test_a_secret_shows_nowhere_but_in_a_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret-one\n\ns3cret-two\r\ns3cret-one\n")
    state = with_settings(STATE, GatewaySettings(access_folder=tmp_path), open_to_others=True)
    assert state.tokens == ("s3cret-one", "s3cret-two")
    assert "s3cret" not in f"{state} {state!r} {state.tokens}"
    folder = tmp_path / "gateway"
    files = render(state, folder)
    write(folder, files)
    holding = [name for name, content in files.items() if "s3cret" in json.dumps(content)]
    assert holding == ["rds/route.json"]
    assert (folder / holding[0]).stat().st_mode & 0o077 == 0


def test_on_loopback_nobody_is_asked(tmp_path: Path) -> None:
    state = with_settings(STATE, GatewaySettings(access_folder=tmp_path / "none", mirror_percent=5), open_to_others=False)
    assert (state.tokens, state.tls) == ((), None)


def test_the_rest_of_the_settings_reach_the_state() -> None:
    pools = (
        GatewayPool(version=1, role="stable", weight=90, mirror=3),
        GatewayPool(version=2, role="canary", weight=10),
    )
    settings = GatewaySettings(
        mirror_percent=5, in_flight_least=7, in_flight_most=70, overload_target_seconds=2, retry_after_seconds=9
    )
    state = with_settings(GatewayState(fleet="x", listen_port=1, admin_port=2, pools=pools), settings, open_to_others=True)
    assert [pool.mirror for pool in state.pools] == [0, 5]
    assert state.admission is not None
    assert (state.admission.least, state.admission.most, state.admission.target, state.admission.retry_after) == (7, 70, 2, 9)
    assert (state.tokens, state.tls) == ((), None)
    with pytest.raises(SettingsError, match="in_flight_least 600 is more than gateway.in_flight_most 512"):
        with_settings(STATE, GatewaySettings(in_flight_least=600), open_to_others=True)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"token": b""}, "token is empty"),
        ({"token": b"\n \n"}, "token is empty"),
        ({"token": "gehe\u00efm".encode()}, "more than printable ASCII"),
        ({"token": b"s3cret with spaces"}, "spaces or control characters"),
        ({"token": b"s3\x00cret"}, "spaces or control characters"),
        ({"tls.crt": b"x"}, "needs both tls.crt and tls.key"),
        ({"tls.key": b"x"}, "needs both tls.crt and tls.key"),
        ({"ca.crt": b"x"}, "has ca.crt but no tls.crt"),
    ],
)
def test_files_that_cannot_be_meant_are_refused_without_a_word_of_what_is_in_them(
    tmp_path: Path, files: dict[str, bytes], said: str
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SettingsError, match=said) as error:
        with_settings(STATE, GatewaySettings(access_folder=tmp_path), open_to_others=True)
    assert "s3" not in str(error.value)


def test_a_folder_that_is_not_there_lets_nobody_in_by_mistake(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="none is not there"):
        tokens_in(tmp_path / "none")
