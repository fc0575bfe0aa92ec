"""The settings of the gateway, and how they become part of its state."""

from __future__ import annotations

from pathlib import Path

import msgspec
from pydantic import Field

from serving_stack.gateway.state import Admission, GatewayState, Tls, Token
from trimtab.errors import SettingsError
from trimtab.settings import Section

TOKENS, CERTIFICATE, KEY, CLIENT_CA = "token", "tls.crt", "tls.key", "ca.crt"


class GatewaySettings(Section, name="gateway"):
    """The gateway: who may use it, what it refuses under overload, and what is tried on copies of the traffic."""

    access_folder: Path | None = Field(
        None,
        description="Folder with the files that open the gateway, each only if wanted: `token` (bearer tokens, one a line), "
        "`tls.crt` and `tls.key` (PEM, for TLS), `ca.crt` (clients must show a certificate by it). A Kubernetes Secret of type "
        "TLS has these names. Without it everybody who reaches the port may ask, in plain text. The stack of `trimtab up` is "
        "on loopback and ignores it.",
    )
    overload_target_seconds: float = Field(
        0.25,
        gt=0,
        description="While the median request takes longer, the number of requests that may be under way shrinks. Default: the "
        "SLO's p99.",
    )
    in_flight_least: int = Field(
        100,
        ge=1,
        description="Requests under way that are never refused, in one gateway. Less means lower latency under overload.",
    )
    in_flight_most: int = Field(
        512,
        ge=1,
        description="Requests under way beyond which all are refused, in one gateway. Requests wait while the only replica is "
        "replaced: less than arrive in that time loses some then.",
    )
    retry_after_seconds: int = Field(1, ge=0, description="What a refused client is told in the header Retry-After.")
    mirror_percent: int = Field(
        0,
        ge=0,
        le=100,
        description="Share of the inference requests that is copied to a canary, beside its share of the traffic; nobody waits "
        "for what it answers. Off, because it is load.",
    )


def with_settings(state: GatewayState, settings: GatewaySettings, *, open_to_others: bool) -> GatewayState:
    """`state` as the settings want it. Raises SettingsError for files that are missing, empty or do not belong together.

    A gateway that is not `open_to_others` listens on loopback and asks nobody for a token.
    """
    if settings.in_flight_least > settings.in_flight_most:
        raise SettingsError(
            f"gateway.in_flight_least {settings.in_flight_least} is more than gateway.in_flight_most {settings.in_flight_most}"
        )
    folder = settings.access_folder if open_to_others else None
    return msgspec.structs.replace(
        state,
        admission=Admission(
            target=settings.overload_target_seconds,
            least=settings.in_flight_least,
            most=settings.in_flight_most,
            retry_after=settings.retry_after_seconds,
        ),
        tokens=tokens_in(folder) if folder else (),
        tls=tls_in(folder) if folder else None,
        pools=tuple(
            msgspec.structs.replace(pool, mirror=settings.mirror_percent if pool.role == "canary" else 0) for pool in state.pools
        ),
    )


def tokens_in(folder: Path) -> tuple[Token, ...]:
    """The tokens that are accepted; none when there is no such file. Never says what is in it."""
    file = folder / TOKENS
    try:
        lines = dict.fromkeys(line.strip() for line in file.read_text(encoding="ascii").splitlines())
        found = tuple(Token(line) for line in lines if line)  # each once: Envoy refuses a table that has one twice
    except FileNotFoundError:
        if folder.is_dir():
            return ()
        raise SettingsError(f"gateway.access_folder: {folder} is not there") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{file} holds more than printable ASCII") from None
    except OSError as error:
        raise SettingsError(f"{file}: {error.strerror}") from error
    if not found:
        raise SettingsError(f"{file} is empty: without a token nobody could be let in; remove it to let in everybody")
    if any(not token.isprintable() or " " in token for token in found):
        raise SettingsError(f"{file} holds a token with spaces or control characters")
    return found


def tls_in(folder: Path) -> Tls | None:
    """Certificate and key; None when neither is there."""
    certificate, key, client_ca = (folder / name for name in (CERTIFICATE, KEY, CLIENT_CA))
    if certificate.is_file() != key.is_file():
        raise SettingsError(f"{folder} needs both {CERTIFICATE} and {KEY}, or neither")
    if not certificate.is_file():
        if client_ca.is_file():
            raise SettingsError(f"{folder} has {CLIENT_CA} but no {CERTIFICATE}: clients show certificates only over TLS")
        return None
    return Tls(certificate=str(certificate), key=str(key), client_ca=str(client_ca) if client_ca.is_file() else None)
