"""`python -m examples.demo`: exit status 0 if there was never a second believer and every take-over came in time."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from examples.demo.judge import judge
from examples.demo.record import clock
from examples.demo.stage import Event, Stage
from examples.demo.timeline import BAD, GOOD, Line, event_line, printer, report
from zkrecipes.testing import InstallationNotFoundError, ServerStartError


def main() -> int:
    """Play, judge and show it."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description="Play, judge and show the demo.")
    parser.add_argument(
        "--samples", type=Path, metavar="DIR", help="keep what the workers write down in this directory"
    )
    options = parser.parse_args()
    # SIGTERM ends it as Ctrl-C does, by the exits of all `with` blocks.
    signal.signal(signal.SIGTERM, _interrupt)
    show = printer()
    began = clock()

    def shown(event: Event) -> None:
        line = event_line(event, began)
        if line is not None:
            show(line)

    with _directory(options.samples) as directory:
        try:
            with Stage(directory, shown) as stage:
                done = stage.play()
        except KeyboardInterrupt:
            show([("interrupted; every process has been ended", BAD)])
            return 130
        except (InstallationNotFoundError, ServerStartError) as error:
            show([(str(error), BAD)])
            return 1
        recorded = stage.recorded()
    verdict = judge(recorded, stage.faults)
    for line in report(stage, recorded, verdict):
        show(line)
    trouble = [event for event in stage.events if event.event == "trouble"]
    if not done:
        show([("the script did not come to its end: a step took too long", BAD)])
    good = done and not verdict.complaints and not trouble
    last: Line = [(verdict.last_line, GOOD if good else BAD)]
    show(last)
    return 0 if good else 1


@contextlib.contextmanager
def _directory(wanted: Path | None) -> Iterator[Path]:
    if wanted is not None:
        wanted.mkdir(parents=True)  # an old run's samples must not be judged with the new ones
        yield wanted
    else:
        with tempfile.TemporaryDirectory(prefix="zkrecipes-demo-") as made:
            yield Path(made)


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
