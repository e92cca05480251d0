"""`make bench`: measures, and prints a table; with `--json FILE` the figures as well."""

import argparse
import json
import os
import platform
import tempfile
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import upserts
from bench.overhead import Measured, Sizes, measure

LIMIT = 1.6


def main() -> None:
    sizes, file = _arguments()
    console = Console()
    with (
        console.status(f"Loading {sizes.documents:,} documents and measuring …"),
        tempfile.TemporaryDirectory() as name,
    ):
        measured = measure(Path(name, "search"), sizes)
        rates = upserts.measure(Path(name, "upserts"), sizes.upserts)
    console.print(_table(measured, sizes))
    console.print(_rates(rates))
    console.print(f"[dim]{_machine()}[/dim]")
    if file is not None:
        found = [{**asdict(each), "ratio_p50": each.ratio} for each in measured]
        file.write_text(
            json.dumps(
                {
                    "machine": _machine(),
                    "sizes": asdict(sizes),
                    "overhead": found,
                    "upserts": [asdict(rate) for rate in rates],
                },
                indent=2,
            )
            + "\n"
        )


def _arguments() -> tuple[Sizes, Path | None]:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    for name, value in asdict(Sizes()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value, help=f"default {value:,}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file, too")
    arguments = vars(parser.parse_args())
    file = arguments.pop("json")
    return Sizes(**arguments), file


def _table(measured: list[Measured], sizes: Sizes) -> Table:
    title = f"One search of {sizes.documents:,} documents over HTTP, {sizes.requests:,} requests to each, in ms"
    table = Table(title=title)
    for column in ("clients", "server", "p50", "p95", "p99", "mean", "p50 ratio"):
        table.add_column(column, justify="left" if column == "server" else "right")
    for each in measured:
        colour = "green" if each.ratio <= LIMIT else "red"
        for name, latency, ratio in (
            ("baseline", each.baseline, ""),
            ("pgretrieve", each.service, f"[{colour}]{each.ratio:.2f}[/{colour}]"),
        ):
            figures = [f"{ms:.2f}" for ms in (latency.p50, latency.p95, latency.p99, latency.mean)]
            table.add_row(str(each.clients), name, *figures, ratio, end_section=name == "pgretrieve")
    table.caption = f"p50 ratio: pgretrieve / baseline, at most {LIMIT} with one client"
    return table


def _rates(rates: list[upserts.Rate]) -> Table:
    table = Table(title="Upserts of one client over HTTP, and COPY in binary, into indexed tables, documents a second")
    for column in ("dimensions", "documents", "pgretrieve", "COPY", "ratio"):
        table.add_column(column, justify="right")
    for rate in rates:
        table.add_row(
            str(rate.dimension), f"{rate.documents:,}", f"{rate.service:,.0f}", f"{rate.copy:,.0f}", f"{rate.ratio:.2f}"
        )
    return table


def _machine() -> str:
    return f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


if __name__ == "__main__":
    main()
