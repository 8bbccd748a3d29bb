"""`haat`: every command of the platform. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from haat.settings import Settings

Command = TypeVar("Command", bound=Callable[..., Any])

GROUPS = {
    "billing": ("haat.cli.billing:billing", "Close a month, record payments, correct what was issued."),
    "cache": ("haat.cli.cache:cache", "Fill the gateway's cache before callers need it."),
    "content": ("haat.cli.content:content", "See the portal's long texts, translate them, lay out the help pages."),
    "dead-letters": ("haat.cli.jobs:dead_letters", "List and replay jobs that failed at every attempt."),
    "events": ("haat.cli.events:events", "Read the event log, verify its chain, hand a handler the past."),
    "flags": ("haat.cli.flags:flags", "List feature flags, make them, turn them."),
    "invoice": ("haat.cli.invoice:invoice", "Print an invoice: as PDF in any of our languages, CSV, JSON."),
    "jobs": ("haat.cli.jobs:jobs", "List jobs, let them run now, cancel them."),
    "ledger": (
        "haat.cli.ledger:ledger",
        "Read the books: the trial balance, accounts, what was posted about a thing.",
    ),
    "models": ("haat.cli.models:models", "Make, try and publish models; alone: run the process that serves them."),
    "plugins": ("haat.cli.plugins:plugins", "See the gateway's plugins, switch them on and off."),
    "price": ("haat.cli.price:price", "Tell what a month would have cost on another card."),
    "projections": ("haat.cli.projections:projections", "Make tables anew from the events they say again."),
    "provider": ("haat.cli.provider:provider", "Try a service before listing it."),
    "rollout": ("haat.cli.rollout:rollout", "Move a service's calls from one version to the next, and back."),
    "settlement": ("haat.cli.settlement:settlement", "Settle months, pay providers, decide disputes."),
    "sla": ("haat.cli.sla:sla", "Service levels: objectives, maintenance, probes, and what a broken month pays."),
    "trace": ("haat.cli.trace:trace", "Tell what a call bears of which invoice lines, by its request id."),
    "usage": ("haat.cli.usage:usage", "Take calls out as files, make the rollups anew."),
    "wallet": ("haat.cli.wallet:wallet", "See what organisations have paid ahead, top up, set budgets."),
}
"""Groups in modules of their own: ``module:attribute`` and the line in the list of commands."""

PROCESSES = {
    "gateway": "Run the gateway alone: the data plane that calls go through.",
    "control": "Run the control API and the portal alone.",
    "worker": "Run a worker alone: jobs, event handlers, schedules.",
    "shipper": "Run the shipper alone: from the gateways' journals to the usage store.",
    "websocket": "Run the WebSocket process alone: it speaks for the gateway's sessions.",
    "speech": "Run the process alone that speaks Socket.IO: speech answered while it is spoken.",
    "bridge": "Run the process alone that asks models over gRPC.",
}


class Haat(click.Group):
    """The root group: finds lazy groups, and turns known errors into one sentence."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *GROUPS])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in GROUPS:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = GROUPS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List every command without importing the lazy ones."""
        rows = []
        for name in self.list_commands(ctx):
            if name in GROUPS:
                rows.append((name, GROUPS[name][1]))
            elif (command := super().get_command(ctx, name)) is not None and not command.hidden:
                rows.append((name, command.get_short_help_str(100)))
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            from haat.cli.reasons import sentence_of

            sentence = sentence_of(error)
            if sentence is None:
                raise
            raise click.ClickException(sentence) from error


def with_settings(*names: str) -> Callable[[Command], Command]:
    """Give a command ``--data-dir`` and those ``names`` that it uses, and hand it the settings made of them."""
    options = [
        click.option(
            "--data-dir",
            type=click.Path(file_okay=False, path_type=Path),
            help="Where everything the platform keeps on disk lives (HAAT_DATA_DIR, .haat).",
        )
    ]
    if "port" in names:
        options.append(
            click.option(
                "--port",
                type=click.IntRange(0, 65535),
                help="Port of the control API and the portal (HAAT_PORT, 8000); 0 takes a free one.",
            )
        )
    if "gateway_workers" in names:
        options.append(
            click.option(
                "--workers",
                "gateway_workers",
                type=click.IntRange(1, 64),
                help="Processes that the gateway is (HAAT_GATEWAY_WORKERS, 1).",
            )
        )
    if "gateway_port" in names:
        options.append(
            click.option(
                "--gateway-port",
                type=click.IntRange(0, 65535),
                help="Port of the gateway (HAAT_GATEWAY_PORT, 8080); 0 takes a free one.",
            )
        )

    def decorate(command: Command) -> Command:
        def run(
            *arguments: Any,
            data_dir: Path | None,
            port: int | None = None,
            gateway_port: int | None = None,
            gateway_workers: int | None = None,
            **keywords: Any,
        ) -> Any:
            from haat.settings import load_settings

            settings = load_settings(
                data_dir=data_dir, port=port, gateway_port=gateway_port, gateway_workers=gateway_workers
            )
            return command(settings, *arguments, **keywords)

        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]  # click's own place
        for option in reversed(options):
            run = option(run)
        return run  # type: ignore[return-value]  # the same command, minus the settings that it is given

    return decorate


@click.group(cls=Haat, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="haat")
def haat() -> None:
    """A marketplace for language-AI services that anyone can host.

    Settings are HAAT_… variables or a TOML file (HAAT_CONFIG, haat.toml): see docs/configuration.md.
    """


@haat.command()
@click.option(
    "--logs",
    type=click.Choice(["files", "stderr"]),
    default="files",
    show_default=True,
    help="Where the processes' logs go: to data-dir/logs, or to standard error with the process's name.",
)
@with_settings("port", "gateway_port", "gateway_workers")
def serve(settings: Settings, logs: str) -> None:
    """Run the whole platform: PostgreSQL, gateway, control, worker, shipper, models."""
    from haat.cli.serve import serve as run

    sys.exit(run(settings, logs_to_stderr=logs == "stderr"))


@haat.command()
@click.option("--once", is_flag=True, help="End after the tour, with one JSON object as the last line.")
@with_settings("port", "gateway_port")
def demo(settings: Settings, once: bool) -> None:
    """Run the platform with a sale on it, and a model that is rolled out and works off a job."""
    import asyncio

    from haat.cli.demo import demo as run

    sys.exit(asyncio.run(run(settings, once=once)))


@haat.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@with_settings("port", "gateway_port")
def sandbox(settings: Settings, as_json: bool) -> None:
    """Make a key for every built-in service of the platform that runs here."""
    import asyncio

    from haat.cli.run_folder import settings_of_running
    from haat.cli.sandbox import make_sandbox, print_sandbox

    made = asyncio.run(make_sandbox(settings_of_running(settings)))
    if as_json:
        click.echo(made.as_json())
    else:
        print_sandbox(made)


@haat.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@with_settings()
def operator(settings: Settings, as_json: bool) -> None:
    """Show the sign-in of the operator's account that the platform made for itself."""
    import json

    from haat.bootstrap import OPERATOR_EMAIL, local_sign_in
    from haat.infra.keyring import keyring_of

    sign_in = local_sign_in(keyring_of(settings), OPERATOR_EMAIL)
    if as_json:
        click.echo(json.dumps({"email": sign_in.email, "password": sign_in.password}))
    else:
        click.echo(f"{sign_in.email}\n{sign_in.password}")


@haat.command()
@click.option("--to", "revision", default="head", show_default=True, help="Revision to reach, or `base` for none.")
@click.option("--check", is_flag=True, help="Change nothing; exit with 1 unless the newest revision is reached.")
@with_settings()
def migrate(settings: Settings, revision: str, check: bool) -> None:
    """Bring the database's schema to a revision."""
    from haat.cli.migrate import migrate as run

    sys.exit(run(settings, revision=revision, check=check))


@haat.command()
@with_settings("port", "gateway_port")
def doctor(settings: Settings) -> None:
    """Say what is missing and the command that fixes it."""
    from haat.cli.doctor import doctor as run

    sys.exit(run(settings))


@haat.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8090, show_default=True, help="Port; 0 takes a free one."
)
@click.option(
    "--service",
    "services",
    multiple=True,
    metavar="PROVIDER/SERVICE=CATEGORY",
    help="A further service to simulate: its category, or `http`. May be repeated.",
)
def mock(host: str, port: int, services: tuple[str, ...]) -> None:
    """Answer calls as the gateway would, without a platform: for tests and CI.

    Every key opens every service. Answers are deterministic and marked `[test …]`; X-Haat-Simulate makes a call fail.
    """
    from haat.cli.mock import run

    sys.exit(run(host, port, services))


@haat.command(hidden=True)
@with_settings()
def stock(settings: Settings) -> None:
    """Make the operator and put the built-in services on the shelf (a part of serve)."""
    from haat.cli.processes import run_stock

    sys.exit(run_stock(settings))


def _process_command(name: str, summary: str) -> None:
    ports = {"gateway": ("gateway_port", "gateway_workers"), "control": ("port", "gateway_port")}.get(name, ())

    def command(settings: Settings) -> None:
        from haat.cli.processes import run_process

        sys.exit(run_process(name, settings))

    command.__doc__ = summary
    haat.command(name=name)(with_settings(*ports)(command))


for _name, _summary in PROCESSES.items():
    _process_command(_name, _summary)


def main() -> None:
    """Entry point of the `haat` program."""
    haat(prog_name="haat")


if __name__ == "__main__":
    main()
