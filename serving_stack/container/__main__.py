"""The command `trimtab-container`. Plain argparse: a preStop hook or a probe should not wait for a rich help page."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from trimtab.errors import TrimtabError


def main() -> None:
    """Run one of the image's programs; what a person can mend is said in one line, which ends in the pod's status."""
    args = _parser().parse_args()
    try:
        args.run(args)
    except TrimtabError as error:
        print(f"trimtab-container: {error}", file=sys.stderr, flush=True)
        sys.exit(2)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="trimtab-container", description="Programs of the serving image's containers.")
    commands = parser.add_subparsers(required=True, metavar="PROGRAM")

    triton = commands.add_parser(
        "triton", help="serve one version of a model on ports 8000 (HTTP), 8001 (gRPC) and 8002 (metrics)"
    )
    triton.add_argument("--model", required=True)
    triton.add_argument("--version", required=True, type=int)
    triton.add_argument("--store", type=Path, default=os.environ.get("TRIMTAB_MODEL_STORE", "/opt/trimtab/store"))
    triton.set_defaults(run=_triton)

    envoy = commands.add_parser("envoy", help="run Envoy on the files that `trimtab gateway-sync` keeps in a folder")
    envoy.add_argument("--folder", type=Path, default=Path("/gateway"))
    envoy.set_defaults(run=_envoy)

    commands.add_parser("drain-triton", help="preStop: wait until the gateway sends nothing more").set_defaults(run=_drain_triton)
    commands.add_parser("drain-envoy", help="preStop: leave the Service, finish what is open").set_defaults(run=_drain_envoy)
    commands.add_parser("hang", help="game day: stop this replica's Triton without killing it").set_defaults(run=_hang)
    commands.add_parser("unhang", help="game day: let it go on").set_defaults(run=_unhang)
    fault = commands.add_parser("fault", help="game day: give this replica a fault, or end it with `none`")
    fault.add_argument("json", help="""such as '{"kind":"failing","share":0.5}', or none""")
    fault.set_defaults(run=_fault)
    return parser


def _triton(args: argparse.Namespace) -> None:
    from serving_stack.container.triton import start

    start(args.store, args.model, args.version, os.environ.get("TRIMTAB_DRILL", ""))


def _envoy(args: argparse.Namespace) -> None:
    from serving_stack.container.envoy import start

    start(args.folder)


def _drain_triton(_: argparse.Namespace) -> None:
    from serving_stack.container.drain import drain_triton

    drain_triton()


def _drain_envoy(_: argparse.Namespace) -> None:
    from serving_stack.container.drain import drain_envoy

    drain_envoy()


def _hang(_: argparse.Namespace) -> None:
    from serving_stack.container.drills import hang

    hang(True)


def _unhang(_: argparse.Namespace) -> None:
    from serving_stack.container.drills import hang

    hang(False)


def _fault(args: argparse.Namespace) -> None:
    from serving_stack.container.drills import replica_fault

    replica_fault(args.json)


if __name__ == "__main__":
    main()
