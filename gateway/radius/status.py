"""What `postern radius status` and the doctor say about RADIUS servers: plain values for JSON. Pure."""

from __future__ import annotations

from gateway.radius.accounting import AccountingQueue
from gateway.radius.channel import Channel, Purpose
from gateway.radius.exchange import Exchange


def describe(exchange: Exchange, queue: AccountingQueue, now: float) -> dict[str, object]:
    """The state of every server and purpose, and of the accounting queue; ages and times in seconds."""
    return {
        "servers": [_channel(channel, exchange, now) for channel in exchange.channels.values()],
        "waiting": exchange.waiting,
        "accounting_queue": {
            "length": len(queue),
            "outage": queue.outage,
            "answered": queue.answered,
            "replaced": queue.replaced,
            "dropped": queue.dropped,
        },
    }


def warning(channel: Channel, *, demanded: bool) -> str:
    """What the operator should know about a server's answers as long as it is so; empty when all is well."""
    if channel.purpose is not Purpose.AUTH or demanded:
        return ""
    if channel.server.require_message_authenticator == "off":
        return (
            f"{channel.place}: answers without Message-Authenticator are accepted, so anybody on the way can forge "
            "them (CVE-2024-3596); update the server and set require_message_authenticator to require"
        )
    return (
        f"{channel.place}: no answer with Message-Authenticator has come yet, and until then answers can be forged on "
        "the way (CVE-2024-3596); let the server send it, or set require_message_authenticator to require"
    )


def _channel(channel: Channel, exchange: Exchange, now: float) -> dict[str, object]:
    tallies = channel.tallies
    demanded = exchange.demands_signature(channel)
    last = tallies.last_answer_at
    return {
        "server": channel.server.name,
        "address": str(channel.server.address),
        "port": channel.port,
        "purpose": channel.purpose.value,
        "breaker": channel.breaker.state.value,
        "failures_in_a_row": channel.breaker.failures,
        "reason": channel.last_reason,
        "last_answer_age_s": None if last is None else round(now - last, 3),
        "rtt_p50_s": tallies.quantile_s(0.5),
        "rtt_p95_s": tallies.quantile_s(0.95),
        "in_flight": len(channel.in_flight),
        "sockets": channel.identifiers.sockets,
        "answers_status_server": channel.answers_status,
        "message_authenticator": channel.server.require_message_authenticator,
        "message_authenticator_demanded": demanded if channel.purpose is Purpose.AUTH else None,
        "warning": warning(channel, demanded=demanded),
        "requests": dict(tallies.requests),
        "refused": dict(tallies.refused),
        "transmissions": tallies.transmissions,
    }
