"""`postern analyze FILE`: what is wrong in a capture, where, and how sure we are.

Exit status: 0 analysed, 1 failed, 2 wrong usage, 3 a finding at or above `--fail-on`, 65 not a capture we can read,
130 interrupted. Everything but the argument parser is imported when it is needed, because the start counts too.

The command reads in its own process, without the layers that bound the worker (`gateway.analysis.sandbox`): it acts for
the user who started it, writes where that user says, and asks the dissector's process for single packets, so a process
that could do none of that would have to hand its report to another one and take twice the memory on a small box. What
a hostile file can reach is bounded by the tables of the engine; a file of strangers is better given to the worker:
`python -m gateway.analysis.worker JOBDIR`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

if TYPE_CHECKING:
    from gateway.analysis.engine import Progress, Settings
    from gateway.analysis.text import Style

FAILED, USAGE, FINDINGS, REFUSED, INTERRUPTED = 1, 2, 3, 65, 130
SEVERITIES: Final = ("info", "low", "medium", "high", "critical")
QUIET_START_S: Final = 0.5  # a file that is done by then needs no progress bar


class _UsageError(Exception):
    """The arguments do not fit together; the text says which."""


def add_parser(subparsers: Any) -> None:  # Any: argparse has no public name for what add_subparsers returns
    """Add the `analyze` command."""
    parser = subparsers.add_parser(
        "analyze",
        help="find out what is wrong in a capture file",
        description="Read a capture (pcap or pcapng, also gzip) and say what is wrong in it, with frame numbers.",
    )
    _add_arguments(parser)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", help="the capture, or - for standard input")
    out = parser.add_argument_group("output (without any: a summary for the terminal)")
    out.add_argument("--json", nargs="?", const="-", metavar="FILE", help="the report as JSON, - for standard output")
    out.add_argument("--html", metavar="FILE", help="one self-contained page with plots")
    out.add_argument("--csv", metavar="DIR", help="findings, flows, dns, tls, http, hosts and series as CSV")
    out.add_argument("--details", type=int, default=8, metavar="N", help="rows of each list (default 8)")
    out.add_argument("--quiet", action="store_true", help="no summary and no progress bar")
    out.add_argument("--colour", "--color", choices=("auto", "always", "never"), default="auto")
    look = parser.add_argument_group("second look")
    look.add_argument("--frames", metavar="N-M", help="decode these frames field by field (needs scapy)")
    look.add_argument("--flow", metavar="UID", help="the packets of one flow, such as C7")
    look.add_argument("--finding", metavar="ID", help="one finding with its frames; the beginning of its id is enough")
    look.add_argument("--bytes", action="store_true", help="with decoded frames also their bytes")
    look.add_argument("--cut", metavar="OUT", help="write the chosen frames (or all) as a capture file")
    look.add_argument(
        "--anonymize", action="store_true", help="map addresses, replace names, cut payload in all output"
    )
    look.add_argument(
        "--keep", action="append", default=[], metavar="IP", help="an address that --anonymize leaves as is"
    )
    look.add_argument("--from-report", metavar="JSON", help="use this report of FILE instead of analysing it again")
    how = parser.add_argument_group("thresholds")
    how.add_argument("--set", action="append", default=[], metavar="DETECTOR.NAME=VALUE", dest="settings")
    how.add_argument("--gap", type=float, metavar="S", help="report silences longer than S seconds (gap.low_s)")
    how.add_argument("--decapsulate", action="store_true", help="look inside GRE, VXLAN, Geneve, GTP-U and IP in IP")
    how.add_argument("--fail-on", choices=SEVERITIES, help="exit with 3 if a finding is at least so severe")
    parser.set_defaults(func=run, run=run)


def run(args: argparse.Namespace) -> int:
    """Carry out the command; returns the exit status."""
    from gateway.analysis.refusals import AnalysisRefused
    from gateway.analysis.second_look import NotFound
    from gateway.analysis.settings import SettingsError

    try:
        return _run(args)
    except (_UsageError, SettingsError) as err:
        return _complain(str(err), USAGE)
    except NotFound as err:
        return _complain(str(err), FAILED)
    except AnalysisRefused as refused:
        return _refuse(args, refused.as_dict(), refused.exit_status)
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as err:
        return _complain(f"{err.filename or args.file}: {err.strerror}", FAILED)
    except MemoryError:
        return _complain("not enough memory for this capture; cut it into smaller files", FAILED)
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)


def _run(args: argparse.Namespace) -> int:
    _check(args)
    if args.frames is not None and not (args.json or args.html or args.csv or args.fail_on):
        return _frames_only(args)
    report = _load_report(Path(args.from_report)) if args.from_report else _analyse(args, _settings(args))
    shown: Any = report
    if args.anonymize:
        shown = _anonymised(args, report)
    _write_outputs(args, report, shown)
    chosen = args.frames or args.flow or args.finding
    if args.cut is not None:
        _cut(args, report)
    elif chosen:
        _look(args, report, shown)
    elif not args.quiet and args.json != "-":
        from gateway.analysis import text

        print(text.summary(shown, _style(args, sys.stdout), details=args.details), end="")
    return _status(args, report)


def _check(args: argparse.Namespace) -> None:
    if sum(item is not None for item in (args.frames, args.flow, args.finding)) > 1:
        raise _UsageError("give only one of --frames, --flow and --finding")
    if args.file == "-" and (args.frames or args.flow or args.finding or args.cut):
        raise _UsageError(
            "standard input cannot be read twice: save it to a file for --frames, --flow, --finding, --cut"
        )
    if args.keep and not args.anonymize:
        raise _UsageError("--keep says what --anonymize shall leave; give both")
    if args.anonymize and not args.cut and (args.frames or args.flow):
        raise _UsageError("decoded packets cannot be anonymised; write them with --cut and look at that file")
    if args.details < 0:
        raise _UsageError("--details needs a number that is not negative")
    if args.cut is not None and Path(args.cut).exists() and args.file != "-" and Path(args.cut).samefile(args.file):
        raise _UsageError("--cut would overwrite the capture itself")


def _settings(args: argparse.Namespace) -> Settings:
    from gateway.analysis.settings import Settings

    overrides = {}
    for item in args.settings:
        name, equals, value = item.partition("=")
        if not equals:
            raise _UsageError(f"--set {item}: expected DETECTOR.NAME=VALUE, such as gap.low_s=2")
        overrides[name.strip()] = value.strip()
    if args.gap is not None:
        overrides["gap.low_s"] = str(args.gap)
    if args.decapsulate:
        overrides["reader.decapsulate"] = "yes"
    return Settings().with_overrides(overrides)


def _analyse(args: argparse.Namespace, settings: Settings) -> Any:  # Any: a Report
    from gateway.analysis.engine import analyze

    bar = _Bar(sys.stderr, enabled=not args.quiet and sys.stderr.isatty())
    try:
        if args.file == "-":
            return analyze(sys.stdin.buffer, name="standard input", settings=settings, progress=bar.show)
        with Path(args.file).open("rb") as source:
            return analyze(source, name=Path(args.file).name, settings=settings, progress=bar.show)
    finally:
        bar.clear()


class _Bar:
    """A progress bar on a terminal, which appears only if the work takes a while."""

    def __init__(self, out: TextIO, *, enabled: bool) -> None:
        self._out = out
        self._enabled = enabled
        self._began = time.monotonic()
        self._shown = False

    def show(self, progress: Progress) -> None:
        """Draw the state told."""
        taken = time.monotonic() - self._began
        if not self._enabled or taken < QUIET_START_S:
            return
        from gateway.analysis.text import progress_line

        width = shutil.get_terminal_size().columns
        rate = progress.packets / taken
        line = progress_line(
            progress.phase, progress.bytes_processed, progress.bytes_total, progress.packets, rate, width
        )
        self._out.write(f"\r\x1b[K{line}")
        self._out.flush()
        self._shown = True

    def clear(self) -> None:
        """Take the bar away."""
        if self._shown:
            self._out.write("\r\x1b[K")
            self._out.flush()


def _load_report(path: Path) -> Any:  # Any: a Report
    import json

    from gateway.analysis.words import SCHEMA

    try:
        report = json.loads(path.read_bytes())
        schema = str(report["schema"])
    except (ValueError, KeyError, TypeError):
        raise _UsageError(f"{path} is not a report of `postern analyze --json`") from None
    if schema.rpartition(".")[0] != SCHEMA.rpartition(".")[0]:  # a minor version only adds fields
        raise _UsageError(f"{path} is a report of another version ({schema}); analyse the capture again")
    return report


def _anonymised(args: argparse.Namespace, report: Any) -> Any:  # Any: a Report
    from gateway.analysis.anonymize import anonymise_report

    return anonymise_report(report, _anonymizer(args))


def _anonymizer(args: argparse.Namespace) -> Any:  # Any: the one Anonymizer of this run
    from ipaddress import ip_address

    from gateway.analysis.anonymize import Anonymizer

    if not hasattr(args, "anonymizer"):
        try:
            keep = [ip_address(text) for text in args.keep]
        except ValueError as err:
            raise _UsageError(f"--keep: {err}") from None
        args.anonymizer = Anonymizer(os.urandom(32), keep=keep)
    return args.anonymizer


def _write_outputs(args: argparse.Namespace, report: Any, shown: Any) -> None:  # Any: Reports
    if args.json is not None:
        import json

        text = json.dumps(shown, sort_keys=True) + "\n"
        if args.json == "-":
            sys.stdout.write(text)
            sys.stdout.flush()
        else:
            Path(args.json).write_text(text, encoding="utf-8")
    if args.html is not None:
        from gateway.analysis import html, html_flows
        from gateway.analysis.frames import CaptureFile

        pictures: list[html_flows.FlowPicture] = []
        if args.file != "-":
            with CaptureFile.open(Path(args.file)) as capture:
                pictures = html_flows.worst_flows(capture, report)
        if args.anonymize:
            rows = {row["uid"]: row for row in shown["flows"]["rows"]}
            pictures = [html_flows.FlowPicture(rows[picture.row["uid"]], picture.trace) for picture in pictures]
        Path(args.html).write_text(html.render(shown, pictures), encoding="utf-8")
    if args.csv is not None:
        from gateway.analysis import tables

        tables.write_all(shown, Path(args.csv))


def _frame_range(text: str) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    if not low.isdecimal() or (dash and not high.isdecimal()):
        raise _UsageError(f"--frames {text}: expected a frame number or a range such as 120-140")
    first, last = int(low), int(high) if dash else int(low)
    if not 1 <= first <= last:
        raise _UsageError(f"--frames {text}: frames count from 1, and the range must not end before it begins")
    return first, last


def _frames_only(args: argparse.Namespace) -> int:
    """Frames by number need no analysis: the records are hopped over."""
    report = _load_report(Path(args.from_report)) if args.from_report else None
    if args.cut is not None:
        _cut(args, report)
    else:
        _look(args, report, report)
    return 0


def _cut(args: argparse.Namespace, report: Any) -> None:  # Any: a Report, or None where only frames are asked for
    from gateway.analysis import second_look
    from gateway.analysis.cut import cut, cut_anonymised
    from gateway.analysis.frames import CaptureFile

    with CaptureFile.open(Path(args.file)) as capture:
        if args.frames is not None:
            records = second_look.between(capture, report, *_frame_range(args.frames))
        elif args.flow is not None:
            records = second_look.flow_records(capture, report, second_look.find_flow(report, args.flow))
        elif args.finding is not None:
            records = second_look.finding_records(capture, report, second_look.find_finding(report, args.finding))
        else:
            records = capture.walk()
        with Path(args.cut).open("wb") as out:
            done = cut_anonymised(records, out, _anonymizer(args)) if args.anonymize else cut(capture, records, out)
    left = f", {done.left_out} left out that cannot be anonymised" if done.left_out else ""
    full = "; stopped at the size limit" if done.full else ""
    print(f"{args.cut}: {done.packets:,} packets, {done.bytes:,} bytes{left}{full}", file=sys.stderr)


def _look(args: argparse.Namespace, report: Any, shown: Any) -> None:  # Any: Reports
    from gateway.analysis import second_look, text
    from gateway.analysis.frames import CaptureFile

    path, style = Path(args.file), _style(args, sys.stdout)
    if args.finding is not None:
        print(text.finding_text(second_look.find_finding(shown, args.finding), style), end="")
        return
    if args.frames is not None:
        records = second_look.frames(path, *_frame_range(args.frames), report)
    else:
        row = second_look.find_flow(report, args.flow)
        print(text.flow_text(row, style))
        with CaptureFile.open(path) as capture:
            if row["proto"] == "tcp":
                print(text.ladder_text(second_look.trace_flow(capture, report, row).segments, style), end="")
                return
            found = second_look.flow_records(capture, report, row)
            records = [record for record, _ in zip(found, range(second_look.MOST_FRAMES), strict=False)]
    _print_decoded(args, records, style, report)


def _print_decoded(args: argparse.Namespace, records: Any, style: Style, report: Any) -> None:  # Any: records, a Report
    from gateway.analysis import dissect, second_look
    from gateway.analysis.packet_text import packets_text, plain_text

    first = report["capture"]["first_unix_ns"] if report is not None else second_look.first_time(Path(args.file))
    try:
        packets = dissect.dissect(records)
    except (dissect.DissectorMissing, dissect.DissectorFailed) as err:
        print(f"postern analyze: {err}", file=sys.stderr)
        print(plain_text(records, style, first_unix_ns=first), end="")
        return
    print(packets_text(packets, style, first_unix_ns=first, with_bytes=args.bytes), end="")


def _style(args: argparse.Namespace, out: TextIO) -> Style:
    from gateway.analysis.text import Style

    looking = out.isatty()
    colour = args.colour == "always" or (args.colour == "auto" and looking and "NO_COLOR" not in os.environ)
    if os.environ.get("TERM") == "dumb" and args.colour == "auto":
        colour = False
    width = max(60, min(shutil.get_terminal_size((80, 24)).columns, 140)) if looking else 100
    unicode = (out.encoding or "ascii").lower().replace("-", "") == "utf8"
    return Style(width=width, colour=colour, unicode=unicode)


def _status(args: argparse.Namespace, report: Any) -> int:  # Any: a Report
    if args.fail_on is not None:
        least = SEVERITIES.index(args.fail_on)
        if any(f["muted"] is None and SEVERITIES.index(f["severity"]) >= least for f in report["findings"]):
            return FINDINGS
    return 0


def _refuse(args: argparse.Namespace, refusal: Any, status: int) -> int:  # Any: a RefusalDict
    if args.json == "-":
        import json

        print(json.dumps(refusal, sort_keys=True))
    from gateway.analysis.escape import show

    parts = [f"{show(args.file)}: {refusal['error']}: {show(refusal['message'], 400)}"]
    if refusal["detail"]:
        parts.append(f"  found: {show(refusal['detail'], 400)} (at byte {refusal['offset']})")
    if refusal["hint"]:
        parts.append(f"  {show(refusal['hint'], 400)}")
    return _complain("\n".join(parts), status)


def _complain(text: str, status: int) -> int:
    print(f"postern analyze: {text}", file=sys.stderr)
    return status


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m gateway.cli.analyze FILE`; returns the exit status."""
    parser = argparse.ArgumentParser(prog="postern analyze", description="Say what is wrong in a capture file.")
    _add_arguments(parser)
    return run(parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
