"""What is said of a retransmission once more is known: needless, overtaken by itself, already acknowledged."""

from __future__ import annotations

import struct

from tests.gateway.analysis.packets import ACK, SYN, Trace, one, tcp
from tests.gateway.analysis.wire import Wire

CLIENT, SERVER = "192.168.7.10", "198.51.100.20"
MSS = 1000
OFFER = bytes.fromhex("020405b4" + "0402" + "080a0000000000000000")


def stamped(value: int, *blocks: tuple[int, int]) -> bytes:
    """A timestamp option, and SACK blocks behind it."""
    option = b"\1\1\x08\x0a" + struct.pack(">II", value, 1)
    if blocks:
        option += b"\1\1" + struct.pack(">BB", 5, 2 + 8 * len(blocks))
        option += b"".join(struct.pack(">II", 1 + left * MSS, 1 + right * MSS) for left, right in blocks)
    return option


class Upload:
    """A client that sends segments of a kilobyte, numbered from zero, to a server that acknowledges."""

    def __init__(self, client_rtt: float, server_rtt: float) -> None:
        self.trace = Trace()
        server_at = server_rtt
        self.trace.add(0.0, tcp(CLIENT, 40_000, SERVER, 443, SYN, 0, options=OFFER, ip_id=1))
        self.trace.add(server_at, tcp(SERVER, 443, CLIENT, 40_000, SYN | ACK, 0, 1, options=OFFER, ip_id=1))
        self.ack(server_at + client_rtt, 0, up=True)

    def data(self, t: float, number: int, stamp: int, ip_id: int) -> None:
        """Segment `number` from the client."""
        packet = tcp(
            CLIENT, 40_000, SERVER, 443, ACK, 1 + number * MSS, 1, bytes(MSS), options=stamped(stamp), ip_id=ip_id
        )
        self.trace.add(t, packet)

    def ack(self, t: float, until: int, *blocks: tuple[int, int], up: bool = False) -> None:
        """An acknowledgement of all segments below `until`, with SACK blocks in segments."""
        ends = (CLIENT, 40_000, SERVER, 443) if up else (SERVER, 443, CLIENT, 40_000)
        seq, ack = (1, 1) if up else (1, 1 + until * MSS)
        self.trace.add(t, tcp(*ends, ACK, seq, ack, options=stamped(9, *blocks), ip_id=self.trace.next_id()))


def at_sender(answer: tuple[tuple[int, int], ...], *, again: bool = True) -> Upload:
    """Six segments of which the second is sent again; `answer` are the blocks of the acknowledgement that follows."""
    upload = Upload(0.0001, 0.05)
    for number in range(6):
        upload.data(0.1 + number / 1000, number, 100, 10 + number)
    for number in range(4):
        upload.ack(0.15 + number / 1000, 1, (2, 3 + number))
    if again:
        upload.data(0.155, 1, 155, 20)
    upload.ack(0.205, 6, *answer)
    return upload


def test_a_loss_behind_the_sender_stays_a_loss() -> None:
    """A segment that is missing in the SACK blocks and sent again was lost between here and the receiver."""
    report = at_sender(()).trace.report(loss__min_count="1")
    found = one(report, "tcp.retransmission.loss")
    assert (found["count"], found["evidence"]["needless"]) == (1, 0)
    assert "between the capture point and the receiver" in found["sentence"]


def test_a_segment_reported_twice_was_not_lost() -> None:
    """The receiver's D-SACK takes the retransmission and its frame out of what was lost (RFC 2883)."""
    report = at_sender(((1, 2),)).trace.report(loss__min_count="1")
    assert not [row for row in report["findings"] if row["kind"] == "tcp.retransmission.loss"]
    assert one(report, "tcp.retransmission.spurious")["frames"] == [14]
    assert (report["tcp"]["retransmissions"], report["tcp"]["loss_rate"]) == (1, 0)


def test_a_network_that_doubles_packets_does_not_hide_a_loss() -> None:
    """A D-SACK for a segment that was sent once says nothing of the one that was sent twice."""
    report = at_sender(((4, 5),)).trace.report(loss__min_count="1")
    assert one(report, "tcp.retransmission.loss")["count"] == 1


def test_what_the_receiver_says_it_has_is_sent_again_in_vain() -> None:
    """A segment inside the newest SACK blocks arrived; sending it again is no sign of loss."""
    upload = at_sender((), again=False)
    upload.data(0.156, 3, 156, 20)
    report = upload.trace.report(loss__min_count="1")
    assert report["tcp"]["cause"] == {"spurious": 1}
    assert not [row for row in report["findings"] if row["kind"].startswith("tcp.retransmission.loss")]


def at_receiver(late_stamp: int | None, late_id: int) -> Upload:
    """Six segments of which the second is overtaken by all others and by its own retransmission."""
    upload = Upload(0.05, 0.0001)
    for number in (0, 2, 3, 4, 5):
        upload.data(0.1 + number / 1000, number, 100, 10 + number)
        upload.ack(0.1001 + number / 1000, 1, *(((2, 1 + number),) if number else ()))
    upload.data(0.155, 1, 155, 20)
    upload.ack(0.1551, 6)
    if late_stamp is not None:
        upload.data(0.157, 1, late_stamp, late_id)
        upload.ack(0.1571, 6, (1, 2))
    return upload


def test_an_original_behind_its_own_retransmission_was_overtaken() -> None:
    """Its older timestamp tells it from a second retransmission; then nothing was lost, and one was needless."""
    report = at_receiver(100, 11).trace.report(loss__min_count="1")
    assert (report["tcp"]["retransmissions"], report["tcp"]["reordered"]) == (1, 1)
    assert report["tcp"]["loss_rate"] == 0
    assert not [row for row in report["findings"] if row["kind"] == "tcp.retransmission.loss"]


def test_a_second_retransmission_is_no_original() -> None:
    """A younger timestamp than that of the first retransmission means sent a third time."""
    report = at_receiver(157, 21).trace.report(loss__min_count="1")
    assert (report["tcp"]["retransmissions"], report["tcp"]["reordered"]) == (2, 0)


def test_a_lost_segment_that_comes_once_is_a_loss_before_the_receiver() -> None:
    """Without a late original the retransmission that fills the hole stands for a loss."""
    report = at_receiver(None, 0).trace.report(loss__min_count="1")
    assert one(report, "tcp.retransmission.loss")["evidence"]["hole_fills"] == 1


def test_a_report_of_a_known_copy_blames_no_other_segment() -> None:
    """The repair of a loss stays one when the D-SACK of a second, needless repetition comes."""
    upload = Upload(0.05, 0.0001)
    for number in (0, 2, 3, 4, 5):
        upload.data(0.1 + number / 1000, number, 100, 10 + number)
        upload.ack(0.1001 + number / 1000, 1, *(((2, 1 + number),) if number else ()))
    upload.data(0.155, 1, 155, 20)
    upload.ack(0.1551, 6)
    upload.data(0.160, 1, 160, 21)
    upload.ack(0.1601, 6, (1, 2))
    found = one(upload.trace.report(loss__min_count="1"), "tcp.retransmission.loss")
    assert (found["count"], found["evidence"]["needless"], found["evidence"]["hole_fills"]) == (1, 1, 1)


def test_a_burst_recorded_as_a_whole_before_its_copies_was_not_sent_twice() -> None:
    """A bridge records thirty segments on one port and then on the other: copies, and one real retransmission."""
    wire = Wire()
    wire.open()
    burst = [(22 + number * 0.01, number) for number in range(30)]
    for ms, number in burst:
        wire.up(ms, ACK, 1 + number * MSS, 1, MSS)
    originals = wire.trace.packets[-30:]
    for t, packet in originals:
        wire.trace.packets.append((t + 400_000, packet))
    wire.up(300, ACK, 1 + 29 * MSS, 1, MSS)
    report = wire.trace.report()
    assert report["capture_health"]["duplicates"] == 30
    assert report["tcp"]["retransmissions"] == 1
    assert report["tcp"]["label_frames"]["retransmission"] == [64]
