"""The root command: what all verbs share, and how errors become exit statuses."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Final

import typer

from zkrecipes.cli import config, counter, doctor, elect, lock, queue, server, topic, watch
from zkrecipes.cli.child import SIGNALLED, InterruptedBySignal
from zkrecipes.cli.output import MissingExtra, UsageProblem, out, status_of, usage_errors
from zkrecipes.cli.settings import AUTH_FORMS, Settings, parse_auth, set_up_logging
from zkrecipes.errors import ZkRecipesError
from zkrecipes.settings import Tls

__all__ = ["app", "run"]

SIGINT: Final = 2
EPILOG: Final = (
    "Exit status: 0; the command's own; 1 refused or conflict; 2 usage; 69 unavailable; 74 outcome unknown; "
    "75 not acquired in time; 76 hold lost; 77 access denied."
)

app = typer.Typer(
    name="zkrecipes",
    help="Locks, elections, listeners, configuration, queues, counters and topics on ZooKeeper, from the shell.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(lock.app, name="lock")
app.add_typer(elect.app, name="elect")
app.add_typer(config.app, name="config")
app.add_typer(counter.app, name="counter")
app.add_typer(counter.ids, name="id")
app.add_typer(queue.app, name="queue")
app.add_typer(topic.app, name="topic")
app.command("watch")(watch.watch)
app.command("server")(server.server)
app.command("doctor")(doctor.doctor)


@app.callback()
def root(
    context: typer.Context,
    *,
    hosts: Annotated[
        str, typer.Option(envvar="ZKRECIPES_HOSTS", metavar="HOST:PORT,…", help="The servers.")
    ] = "127.0.0.1:2181",
    namespace: Annotated[
        str, typer.Option(envvar="ZKRECIPES_NAMESPACE", metavar="PATH", help="Put before every path.")
    ] = "",
    auth: Annotated[
        list[str] | None, typer.Option(envvar="ZKRECIPES_AUTH", metavar="…", help=f"{AUTH_FORMS}; may be repeated.")
    ] = None,
    tls_ca: Annotated[
        str | None,
        typer.Option(envvar="ZKRECIPES_TLS_CA", metavar="FILE", help="Use TLS, and trust these certificates."),
    ] = None,
    tls_cert: Annotated[
        str | None, typer.Option(envvar="ZKRECIPES_TLS_CERT", metavar="FILE", help="Our certificate.")
    ] = None,
    tls_key: Annotated[
        str | None, typer.Option(envvar="ZKRECIPES_TLS_KEY", metavar="FILE", help="Its private key.")
    ] = None,
    tls_check_hostname: Annotated[
        bool, typer.Option(help="Whether the servers' certificates must name the hosts that we connect to.")
    ] = True,
    connect_timeout: Annotated[float, typer.Option(metavar="SECONDS", help="Longest wait for a server.")] = 15.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; may also follow the verb.")] = False,
    verbose: Annotated[int, typer.Option("--verbose", "-v", count=True, help="Log more to the standard error.")] = 0,
) -> None:
    """Locks, elections, listeners and configuration on ZooKeeper, from the shell."""
    out.json = as_json
    set_up_logging(verbose)
    credentials = tuple(parse_auth(text) for text in auth or ())
    tls: Tls | None = None
    if tls_ca or tls_cert or tls_key:
        with usage_errors():
            password = os.environ.get("ZKRECIPES_TLS_KEY_PASSWORD")
            tls = Tls(tls_ca, tls_cert, tls_key, password, check_hostname=tls_check_hostname)
    context.obj = Settings(hosts, namespace, credentials, tls, connect_timeout)


def run() -> int:
    """Run it; the exit status."""
    try:
        app(prog_name="zkrecipes")
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else 0 if exit_.code is None else 1
    except (ZkRecipesError, UsageProblem, MissingExtra) as error:
        status = status_of(error)
        out.error(error, status)
        return status
    except InterruptedBySignal as interrupt:
        return SIGNALLED + interrupt.number
    except KeyboardInterrupt:
        return SIGNALLED + SIGINT
    except BrokenPipeError:
        # Whoever read our output has gone, as `head` does. Python would complain at exit, too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SIGNALLED + 13
    return 0
