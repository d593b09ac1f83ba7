"""What a finding means and what to do about it, in words for the person who has to act.

The key is a finding's `advice`; where it has no text of its own the text of the nearest shorter key is used
(`tcp.loss.burst`, `tcp.loss`, `tcp`).
"""

from __future__ import annotations

from typing import Final

ADVICE: Final[dict[str, str]] = {
    "tcp": "A TCP connection did not run as it should. The ladder of its flow shows the packets in question.",
    "tcp.loss": "Packets are lost on the way. Look at the link the capture was taken on first (radio signal, duplex, "
    "error counters, a full uplink), then take a second capture at the other end: where the loss is no longer seen, "
    "between these two points it happens.",
    "tcp.retransmission": "Data had to be sent again. After a timeout the connection stood still for that long; "
    "timeouts in a row mean that the path was gone for a moment.",
    "tcp.spurious": "Data was sent again although it had arrived: the answer was late, not lost. Look for a full "
    "buffer on the way back, or for a radio link that holds packets and releases them together.",
    "tcp.reordering": "Packets overtake each other. Look for load sharing over several links, or a radio link with "
    "its own repetitions. It costs speed only if it is frequent.",
    "tcp.syn": "A connection attempt had to be repeated, so the user waited a second or more before anything began. "
    "Either the way there or back loses packets, or the server's queue of new connections is full.",
    "tcp.handshake": "The connection took long to open. A slow answer to the SYN is distance or a loaded server; a "
    "slow third packet is the client's side.",
    "tcp.unanswered": "Nobody answers: the host is off, a firewall drops silently, or the way back is missing.",
    "tcp.connect": "Connections are tried and do not come about. See whether the service runs and listens there, and "
    "whether a firewall stands between.",
    "tcp.refused": "The host is there and says no: the service does not run on that port.",
    "tcp.reset": "A connection was cut off. A reset by the server after data is usually the application or its time "
    "limit; one with a different hop count comes from a box in between.",
    "tcp.rtt": "Each question and answer takes this long whatever the bandwidth is. Compare with the distance: light "
    "in fibre needs 1 ms for 100 km there and back.",
    "tcp.bufferbloat": "The delay rises when the line is busy: a buffer on the way is too large. Shape just below the "
    "line's rate with a fair queue (fq_codel, cake) at the slow link.",
    "tcp.window": "The receiver stops the sender because its application does not read fast enough. The network is "
    "not at fault; look at the receiving host (processor, disk, a slow program).",
    "tcp.throughput": "The transfer was slow, and the limit is named. Loss and delay are the network's, a closed "
    "window is the receiver's, pauses are the sender's.",
    "tcp.gap": "Somebody was waiting during this silence. What was awaited says who was slow to answer.",
    "tcp.sack": "Without selective acknowledgement each loss costs far more. Some middlebox or an old system takes the "
    "option away.",
    "tcp.idle": "Connections that are kept open without traffic are usual for chat, mail and push services; a firewall "
    "or NAT on the way may forget them after some minutes.",
    "tcp.half_closed": "One side has closed, the other has not, for a long time: the application forgot to close.",
    "tcp.state": "The connection did not end properly. Look for programs that do not close, or a box that forgets.",
    "tcp.zombie": "Data is unanswered and the line is silent: the other side has gone without saying so, or a firewall "
    "has forgotten the connection. Keep-alives shorter than its memory help.",
    "dns": "Names are resolved slowly or not at all, and everything else waits for that. Try another resolver, and see "
    "whether the failing names exist at all.",
    "tls": "The encrypted connection was slow to open or did not come about. An alert names the reason: certificate, "
    "version or name.",
    "tls.version": "This version of TLS has known weaknesses. Update the client or the server.",
    "http": "The server answered with an error or late. If the round trip is short, the time is spent in the server.",
    "quic": "QUIC got no answer and the browser fell back to TCP: UDP port 443 is blocked somewhere.",
    "icmp": "A router or host reports that packets cannot be delivered. The reporter is the place to look at.",
    "ip.pmtu": "Packets are too large for a link on the way, and the sender does not listen to the message about it. "
    "Let ICMP pass, or clamp the MSS on the gateway.",
    "pmtu": "Packets are too large for a link on the way. Let ICMP pass, or clamp the MSS on the gateway.",
    "ip": "Packets travel in pieces; one lost piece loses all. Lower the packet size of the application.",
    "fragments": "Packets travel in pieces; one lost piece loses all. Overlapping pieces are usually an attack.",
    "dhcp": "Clients have trouble getting an address. See whether the pool is full, and whether there is a second "
    "server that should not be there.",
    "arp": "Two devices claim one address, or somebody asks for all of them. Find them by the hardware addresses.",
    "nd": "Two devices claim one IPv6 address, or somebody answers in another's name. Find them by the hardware "
    "addresses; a switch that guards neighbour discovery keeps strangers from answering.",
    "mdns": "A device announces itself far too often. Restart it, or limit multicast on the radio.",
    "rtp": "Voice or video suffers. Loss above one per cent and jitter above 30 ms are heard; give this traffic "
    "priority at the slow link.",
    "udp": "A regular stream arrives irregularly. Look for a busy link without priorities.",
    "udp.jitter": "A regular stream arrives irregularly. Look for a busy link without priorities.",
    "timing": "The traffic comes in bursts or stops. Compare the moment with the other findings.",
    "traffic": "The traffic comes in bursts or stops. Compare the moment with the other findings.",
    "burst": "Much traffic came at once. Harmless by itself; loss and delay at the same moment say otherwise.",
    "temporal": "Something repeats at a fixed pace. It is named where it is known.",
    "asymmetry": "Only one direction is in the capture: the other takes another path, or the tap sees one side only. "
    "Loss and delay cannot be judged for these flows.",
    "capture": "This says something about the capture, not about the network. Capture again if the answer matters: "
    "with full packets, on one interface, with offload switched off, and with a large enough buffer.",
    "protocol": "An old protocol that sends everything in clear text. Use its encrypted successor.",
    "security": "This traffic looks hostile. Check the host named as the source before anything else.",
    "security.scan": "One host tries many doors. In your own network this is an administrator's tool or an infected "
    "device: find out which. From outside it is everyday noise unless something answered.",
    "security.brute_force": "Passwords are being guessed. If a long session follows, treat the account as taken over: "
    "change the password, look into the logs, limit the number of tries.",
    "security.flood": "A target is flooded so that it cannot serve others. Rate limits and SYN cookies help at the "
    "target, the provider helps with the line.",
    "security.amplification": "Servers answer a question somebody else has asked in the target's name. Close open "
    "resolvers and time servers of your own; ask the provider to filter the rest.",
    "security.dns_tunnel": "Data seems to be carried inside DNS names. Look at the client; block the domain named if "
    "nobody can say what it is for.",
    "security.exfiltration": "A host sends far more than it receives. A backup or a video call looks the same: ask the "
    "owner of the host before anything else.",
    "security.beacon": "A host calls the same place at a steady pace, as remote-controlled devices do, and as many "
    "honest programs do. Find out which program it is.",
    "security.lateral": "One host opens sessions to many neighbours, as an intruder does who spreads. If it is no "
    "administrator's machine, take it off the network.",
    "security.cleartext": "A password went over the network unencrypted. Everybody on the way could read it: switch to "
    "the encrypted form of the protocol and change the password.",
}


def advice_for(key: str) -> str:
    """The explanation for an advice key; empty if there is none."""
    while key:
        if key in ADVICE:
            return ADVICE[key]
        key = key.rpartition(".")[0]
    return ""
