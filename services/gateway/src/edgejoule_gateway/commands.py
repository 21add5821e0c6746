"""The commands ``edgejoule gateway`` and ``edgejoule devices``."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Annotated

import typer

from edgejoule.errors import EdgejouleError
from edgejoule.options import Json, StorePlace, existing_store

gateway = typer.Typer(help="Serve boards: the one door between them and the stack.", no_args_is_help=True)
devices = typer.Typer(help="The boards that the gateway serves, and their tokens.", no_args_is_help=True)

PORT = 8443

Name = Annotated[str, typer.Argument(metavar="NAME", help="The device, as specs name it.")]


@gateway.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.", envvar="EDGEJOULE_GATEWAY_HOST")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", envvar="EDGEJOULE_GATEWAY_PORT")] = PORT,
    certificate: Annotated[
        Path | None, typer.Option(help="TLS certificate, with its chain (PEM).", envvar="EDGEJOULE_GATEWAY_CERTIFICATE")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="The certificate's key (PEM).", envvar="EDGEJOULE_GATEWAY_KEY")
    ] = None,
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--name",
            metavar="NAME",
            help="Where there is no certificate, make one for this host name or address; may be given several times.",
            envvar="EDGEJOULE_GATEWAY_NAMES",
            show_default=False,
        ),
    ] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Serve plain HTTP beyond this host, because TLS ends before the gateway.")
    ] = False,
    unreachable_h: Annotated[
        float,
        typer.Option(
            help="Steps that wait for so many hours for a board that is silent end as unreachable.",
            envvar="EDGEJOULE_UNREACHABLE_H",
            min=0.01,
        ),
    ] = 6.0,
    store: StorePlace = None,
) -> None:
    """Give boards the steps that wait for them, and take their results, until told to stop."""
    from dataclasses import replace

    from edgejoule.kinds import Kinds
    from edgejoule.stack.commands import alive_file, stack, store_of_stack
    from edgejoule.stack.metrics import Metrics, showing, workspace_of
    from edgejoule_gateway.app import Gateway
    from edgejoule_gateway.assignments import Assignments
    from edgejoule_gateway.certificate import have_certificate
    from edgejoule_gateway.limits import Limits
    from edgejoule_gateway.registry import Registry
    from edgejoule_gateway.server import check_listening
    from edgejoule_gateway.server import serve as serve_there

    logging.basicConfig(level=logging.INFO, format="[%(asctime)s: %(levelname)s] %(message)s")
    if names and certificate is not None and key is not None:
        have_certificate(names, certificate, key)
    elif names:
        raise EdgejouleError("--name makes a certificate and its key: say where by --certificate and --key")
    check_listening(host, certificate, key, plain=plain)
    limits = replace(Limits(), unreachable_s=unreachable_h * 3600)
    with stack() as (coordination, _):
        kept = store_of_stack(store)
        metrics = Metrics("gateway", workspace_of())
        assignments = Assignments(kept, coordination, Kinds(), limits, metrics)
        app = Gateway(assignments, Registry(kept, limits.registry_s), coordination, limits, alive_file(), metrics)
        with showing(metrics, pages={"/metrics": app.metrics_page, "/devices": app.targets}):
            serve_there(app, host, port, certificate, key, limits)


@gateway.command("certificate")
def make(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="Host names and addresses by which boards reach the gateway.")
    ],
    certificate: Annotated[Path, typer.Option(help="Where to write it; boards need a copy.")] = Path("gateway.crt"),
    key: Annotated[Path, typer.Option(help="Where to write its key; the gateway alone needs it.")] = Path(
        "gateway.key"
    ),
) -> None:
    """Make a certificate that boards are told to trust, for ten years."""
    from edgejoule_gateway.certificate import make_certificate

    make_certificate(names, certificate, key)
    typer.echo(f"{certificate} is for the gateway and for every board (--ca); {key} is for the gateway alone.")


@devices.command()
def create(
    name: Name,
    store: StorePlace = None,
    file: Annotated[
        Path | None, typer.Option(help="Write the token there, for its owner alone.", show_default="shown")
    ] = None,
) -> None:
    """Make a token for a board. It is shown once; an earlier one of this board is void within seconds."""
    from edgejoule.boards import new_token, register

    kept = existing_store(store)
    token = new_token(name)
    if file is not None:
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise EdgejouleError(f"{file} is there already: name another file, or remove it") from None
        with open(descriptor, "w", encoding="utf-8") as output:
            output.write(token + "\n")
    try:
        register(name, token, kept)
    except EdgejouleError:
        if file is not None:
            file.unlink()
        raise
    typer.echo(token if file is None else f"The token of {name} is in {file}: bring it to the board, and keep no copy.")


@devices.command("list")
def show(store: StorePlace = None, as_json: Json = False) -> None:
    """Show the boards, when each was last heard of, and what it is."""
    from edgejoule.boards import is_used, probe_of, token_of

    kept = existing_store(store)
    names = kept.device_names()
    seen = _seen(names)
    found = []
    for name in names:
        token, probe = token_of(name, kept), probe_of(name, kept)
        found.append(
            {
                "name": name,
                "token": "revoked" if token is None or token.revoked_at else "valid",
                "made_at": token.made_at if token else None,
                "used": is_used(token, probe),
                "seen_at": seen.get(name),
                "agent": probe.hello.agent if probe else None,
                "processor": probe.hello.hardware.get("processor") if probe else None,
            }
        )
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for device in found:
        words = [f"last heard of at {device['seen_at']}" if device["seen_at"] else "not heard of"]
        words += [f"agent {device['agent']} on {device['processor']}"] if device["agent"] else []
        typer.echo(f"{device['name']}: token {device['token']}, {', '.join(words)}")
    if not found:
        typer.echo("There are no devices yet: edgejoule devices create NAME makes the first one's token.")


@devices.command()
def revoke(name: Name, store: StorePlace = None) -> None:
    """Serve a board no more: its token is void within seconds."""
    from edgejoule.boards import revoke as revoke_token

    revoke_token(name, existing_store(store))
    typer.echo(f"The token of {name} is void. Its steps wait until there is another, or end as unreachable.")


def _seen(names: list[str]) -> dict[str, str]:
    """When boards were last heard of, as far as the stack's Redis is named and knows."""
    if not names or not os.environ.get("EDGEJOULE_BROKER"):
        return {}
    from edgejoule.stack.commands import stack

    with stack() as (coordination, _):
        return coordination.seen(names)
