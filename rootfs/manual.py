"""The manual pages, made from what the programs say of themselves: postern(1), postern.conf(5), posternd(8).

Written by hand they would be wrong after the next option. The language is man(7), which mandoc, groff and busybox read.
"""

from __future__ import annotations

import argparse
import re
from datetime import UTC, datetime
from typing import Any

from gateway.cli.main import COMMANDS, make_parser
from gateway.config_example import accepted, first_sentence
from gateway.config_loader import REPEATED, SINGLE, option_fields, option_name
from gateway.control.views import written
from rootfs.payload import version

_DAEMON = r"""
.SH NAME
posternd, postern\-web, postern\-worker, postern\-system \- the processes of the Postern gateway
.SH SYNOPSIS
.B posternd
[\fB\-\-check\fR | \fB\-\-example\fR | \fB\-\-withdraw\fR] [\fICONFIG\fR]
.SH DESCRIPTION
.B posternd
gives addresses to guests, holds them at the kernel's gate until they log in, counts and accounts what they use, and
lets them go on after a restart. Without \fICONFIG\fR it reads \fI/etc/config/postern\fR.
It needs CAP_NET_ADMIN, CAP_NET_RAW and CAP_NET_BIND_SERVICE, and no other power but CAP_BPF, without which it works but
forwarding is slower.
.PP
Beside it run, each as a user of its own:
.TP
.B postern\-web \-\-role portal
The pages that guests meet. It has no power over the network: it asks posternd through the control socket.
.TP
.B postern\-web \-\-role admin
The administration pages, over HTTPS on port 8443, never on a guest network.
.TP
.B postern\-worker
Analyses captures, without a network, each in a child with limits.
.TP
.B postern\-system
Does the few things that need root: it writes the configuration and sets the time zone, for posternd alone.
.SH OPTIONS
.TP
.B \-\-check
Print every problem of the configuration, and how to mend it, and exit.
.TP
.B \-\-example
Print a configuration with every option, its default and what it accepts, and exit.
.TP
.B \-\-withdraw
Take out of the kernel what a stopped posternd left there so that nobody notices a restart: its table, guards, addresses
and forwarding. Removing the package does that.
.SH SIGNALS
SIGHUP reads the configuration again and applies the difference; a file with problems changes nothing.
SIGTERM stops it: sessions are kept and go on at the next start.
.SH EXIT STATUS
0 stopped as asked, or switched off, or checked without a problem; 1 it cannot run, or the configuration has problems;
2 wrong usage.
.SH FILES
.TP
.I /etc/config/postern
The configuration.
.TP
.I /var/lib/postern
Sessions, leases, accounts and queued accounting.
.TP
.I /run/postern/control.sock
The control socket. Group postern looks, group postern\-admin changes.
.SH FIRST START
On a new machine, open https://ADDRESS:8443 and enter the setup code that
.B postern setup\-code
prints.
.SH SEE ALSO
.BR postern (1),
.BR postern.conf (5)
"""


def pages(epoch: int) -> dict[str, str]:
    """Each page's text by its file's name."""
    return {
        "postern.1": _head("POSTERN", 1, epoch) + _command(),
        "postern.conf.5": _head("POSTERN.CONF", 5, epoch) + _configuration(),
        "posternd.8": _head("POSTERND", 8, epoch) + _DAEMON.lstrip("\n"),
    }


def _head(title: str, section: int, epoch: int) -> str:
    day = datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%d")
    return f'.TH "{title}" "{section}" "{day}" "Postern {version()}" "Postern"\n'


def _text(text: str) -> str:
    """Words as man(7) wants them: no backslash, dash or leading dot or quote is taken for a command."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("…", "...").replace("`", "")
    return re.sub(r"^(?=['.])", r"\\&", escaped, flags=re.MULTILINE)


def _command() -> str:
    lines = [
        ".SH NAME",
        "postern \\- look into the gateway and steer it",
        ".SH SYNOPSIS",
        "\\fBpostern\\fR \\fICOMMAND\\fR [\\fIARGUMENTS\\fR]",
        ".SH DESCRIPTION",
        "Root and members of group postern\\-admin may change things; members of group postern may look.",
        "Every command answers with a table for people, and with \\fB\\-\\-json\\fR for programs.",
        ".SH COMMANDS",
    ]
    for name, command in COMMANDS.items():
        parser = make_parser(name)
        [choices] = [item for item in parser._actions if isinstance(item, argparse._SubParsersAction)]
        lines += [f".SS postern {_text(name)}", _text(command.summary[:1].upper() + command.summary[1:]) + "."]
        lines += _arguments(choices.choices[name])
    lines += [
        ".SH EXIT STATUS",
        _text(parser.epilog or "").replace("Exit status: ", ""),
        ".SH SEE ALSO",
        ".BR posternd (8),",
        ".BR postern.conf (5)",
    ]
    return "\n".join(lines) + "\n"


def _arguments(parser: argparse.ArgumentParser) -> list[str]:
    lines = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for choice in action._choices_actions:
                inner = action.choices[choice.dest]
                usage = inner.format_usage().removeprefix("usage: ").split()
                lines += [".TP", "\\fB" + _text(" ".join(word for word in usage if word != "[-h]")) + "\\fR"]
                lines.append(_text((choice.help or "").strip() or choice.dest))
                lines += [".RS", *_arguments(inner), ".RE"] if _arguments(inner) else []
        elif action.dest not in ("help", "json", "socket") and action.help is not argparse.SUPPRESS:
            name = ", ".join(action.option_strings) or str(action.metavar or action.dest)
            value = (
                "" if action.nargs == 0 or not action.option_strings else f" {action.metavar or action.dest.upper()}"
            )
            lines += [".TP", f"\\fB{_text(name + value)}\\fR", _text(_expanded(action, parser)) or "."]
    return lines


def _expanded(action: argparse.Action, parser: argparse.ArgumentParser) -> str:
    return (action.help or "") % {**vars(action), "prog": parser.prog}


def _configuration() -> str:
    lines = [
        ".SH NAME",
        "postern.conf \\- configuration of the Postern gateway",
        ".SH SYNOPSIS",
        ".I /etc/config/postern",
        ".SH DESCRIPTION",
        "Sections begin with \\fBconfig\\fR \\fITYPE\\fR and, where there may be several, a name in quotes.",
        "Below stand lines \\fBoption\\fR \\fINAME VALUE\\fR and, for options with several values,",
        "\\fBlist\\fR \\fINAME VALUE\\fR once for each. A line that begins with # is a comment.",
        "\\fBposternd \\-\\-check\\fR says what is wrong with a file, all at once;",
        "\\fBpostern config reload\\fR applies it to the running gateway.",
    ]
    for kind, (_, section) in {**SINGLE, **REPEATED}.items():
        name = " \\fINAME\\fR" if kind in REPEATED else ""
        lines += [f".SH config {_text(kind)}{name}", _text(first_sentence(section))]
        for item in option_fields(section):
            lines += [".TP", f"\\fB{_text(option_name(item))}\\fR", _text(_about(item))]
    lines += [".SH SEE ALSO", ".BR posternd (8),", ".BR postern (1)"]
    return "\n".join(lines) + "\n"


def _about(item: Any) -> str:  # Any: a dataclass field of any section
    default = written(item.default)
    tail = "Required." if item.metadata["required"] else (f"Default: {default}." if default else "")
    return " ".join(filter(None, [item.metadata["doc"], accepted(item), tail]))
