"""Labels of unusual segments: what tshark 4.0 says of the same packets, frame by frame."""

from __future__ import annotations

from tests.gateway.analysis.packets import ACK, FIN, RST, SYN
from tests.gateway.analysis.wire import PLAIN, SCALE, Wire


def test_the_window_of_a_syn_is_compared_as_the_field_says() -> None:
    """A server whose first acknowledgement repeats the field of its SYN-ACK repeats itself; another field is news."""
    for win, label in ((1000, "duplicate_ack"), (8, "window_update")):
        wire = Wire()
        wire.up(0, SYN, 0, 0, options=SCALE)
        wire.down(20, SYN | ACK, 0, 1, win=1000, options=SCALE)
        wire.up(21, ACK, 1, 1)
        wire.down(40, ACK, 1, 1, win=win)
        assert wire.labels() == {label: [4]}


def test_a_window_is_full_without_scale_where_one_side_has_none() -> None:
    """A client that offers no scale rules it out for both, seen SYN-ACK or not."""
    wire = Wire()
    wire.up(0, SYN, 0, 0, options=PLAIN)
    wire.up(21, ACK, 1, 1)
    wire.down(22, ACK, 1, 1, win=3000)
    wire.up(30, ACK, 1, 1, size=1400)
    wire.up(31, ACK, 1401, 1, size=1600)
    assert wire.labels() == {"window_full": [5]}


def test_what_is_soon_is_known_from_one_direction() -> None:
    """Where only the client is seen, its SYN and its first acknowledgement still tell how long a round trip lasts."""
    wire = Wire()
    wire.up(0, SYN, 0, 0, options=PLAIN)
    wire.up(60, ACK, 1, 1)
    wire.up(61, ACK, 1, 1, size=1000)
    wire.up(62, ACK, 2001, 1, size=1000)
    wire.up(100, ACK, 1001, 1, size=1000)
    wire.up(200, ACK, 1001, 1, size=500)
    assert wire.labels() == {"lost_segment": [4], "out_of_order": [5], "retransmission": [6]}


def test_a_syn_behind_the_end_of_an_older_connection_begins_a_new_one() -> None:
    """The server's late FIN belongs to a connection before; the SYN on the same ports does not follow it."""
    wire = Wire()
    wire.down(0, FIN | ACK, 70_000, 9_000)
    wire.up(10, SYN, 500_000, 0, options=PLAIN)
    wire.down(30, SYN | ACK, 1_000_000, 500_001, options=PLAIN)
    wire.up(31, ACK, 500_001, 1_000_001)
    wire.up(32, ACK, 500_001, 1_000_001, size=100)
    report = wire.trace.report()
    assert report["tcp"]["label_frames"] == {"reused_ports": [2]}
    assert report["tcp"]["streams"] == 2


def test_a_syn_ack_recorded_before_its_syn_is_one_connection() -> None:
    """The order of two cards of one recorder is not the order on the wire."""
    wire = Wire()
    wire.down(0, SYN | ACK, 1_000, 501, options=PLAIN)
    wire.up(0.1, SYN, 500, 0, options=PLAIN)
    wire.up(1, ACK, 501, 1_001)
    wire.up(2, ACK, 501, 1_001, size=100)
    assert wire.trace.report()["tcp"]["streams"] == 1
    assert wire.labels() == {}


def test_the_first_segment_seen_may_be_acknowledged_already() -> None:
    """A recording that begins with the acknowledgement shows data sent in vain."""
    wire = Wire()
    wire.down(0, ACK, 1, 5_000)
    wire.up(10, ACK, 4_000, 1, size=1000)
    wire.up(20, ACK, 5_000, 1, size=1000)
    assert wire.labels() == {"spurious_retransmission": [2], "retransmission": [2]}


def test_a_reset_without_ack_acknowledges_nothing() -> None:
    """Data that follow the other side's bare reset are a retransmission and no longer a needless one."""
    wire = Wire()
    wire.up(0, SYN, 0, 0, options=PLAIN)
    wire.down(20, SYN | ACK, 0, 1, options=PLAIN)
    wire.up(21, ACK, 1, 1)
    wire.down(22, ACK, 1, 1, size=1000)
    wire.up(23, ACK, 1, 1001)
    wire.up(24, RST, 1, 0, win=0)
    wire.down(400, ACK, 1, 1, size=1000)
    assert wire.labels() == {"retransmission": [7]}


def test_a_stray_acknowledgement_before_the_syn_ack_loses_nothing() -> None:
    """A server that answers a SYN by its memory of an older connection is reset, and then opens the new one."""
    wire = Wire()
    wire.up(0, SYN, 1_000, 0, options=PLAIN)
    wire.down(20, ACK, 5_000, 777_000)
    wire.up(21, RST, 777_000, 0, win=0)
    wire.up(3000, SYN, 1_000, 0, options=PLAIN)
    wire.down(3020, SYN | ACK, 900_000, 1_001, options=PLAIN)
    wire.up(3021, ACK, 1_001, 900_001)
    wire.up(3022, ACK, 1_001, 900_001, size=100)
    report = wire.trace.report()
    assert report["capture_health"]["drops_proved"] == 0
    assert report["tcp"]["label_frames"] == {"retransmission": [4], "lost_segment": [5]}
