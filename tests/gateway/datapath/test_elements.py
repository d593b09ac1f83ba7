"""Encoding and decoding of set elements, without a kernel."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st

from gateway.addresses import MacAddress
from gateway.datapath.elements import (
    DOWN,
    UP,
    Drop,
    ElementSet,
    Encoder,
    Kind,
    Put,
    Stored,
    Tally,
    decode_elements,
    key_of_client,
    key_of_number,
)
from gateway.datapath.nfnetlink import Reply, attribute, attributes
from gateway.datapath.scripted import name_key, name_put, read_listing

MAC = MacAddress.parse("02:00:5e:10:00:2a")
AUTH4 = ElementSet("auth4_guest", Kind.AUTH4)
AUTH6 = ElementSet("auth6_guest", Kind.AUTH6)
BIND4 = ElementSet("bind4_guest", Kind.BIND4)
WHO = key_of_client(MAC, IPv4Address("10.41.0.7"))

numbers = st.integers(1, 0xFFFE)
counts = st.integers(0, 2**63)
lifetimes = st.none() | st.integers(1, 10**9)
puts = st.one_of(
    st.tuples(st.just(AUTH4), st.binary(min_size=12, max_size=12), numbers, lifetimes),
    st.tuples(st.just(AUTH6), st.binary(min_size=6, max_size=6), numbers, lifetimes),
    st.tuples(st.just(BIND4), st.binary(min_size=12, max_size=12)),
    st.tuples(st.sampled_from([UP, DOWN]), st.builds(key_of_number, numbers)),
).map(lambda parts: Put(*parts))


def reply_of(message: bytes) -> Reply:
    """The message as if the kernel had sent it."""
    return Reply(message[4], message, 20, len(message))


def test_key_of_a_client_pads_the_mac() -> None:
    """A concatenation pads each part to four octets: the MAC takes eight."""
    assert bytes.fromhex("02005e10002a0000") + bytes((10, 41, 0, 7)) == WHO


@given(puts)
def test_what_is_encoded_decodes_to_itself(put: Put) -> None:
    """An element that shall be there reads back with its set, key, mark and lifetime."""
    message = Encoder("postern").change(put, 1, 0)
    assert struct.unpack_from("=I", message)[0] == len(message)
    assert len(message) % 4 == 0
    lifetime_ms = (put.lifetime_s or 0) * 1000
    assert list(decode_elements(reply_of(message))) == [
        (put.set.name, put.key, Stored(put.mark, Tally(0, 0), lifetime_ms))
    ]


@given(numbers, counts, counts)
def test_counter_of_a_restored_element_goes_with_it(number: int, octets: int, packets: int) -> None:
    """A tally given with an element stands in its counter expression."""
    message = Encoder("postern").change(Put(UP, key_of_number(number), tally=Tally(octets, packets)), 1, 0)
    body = message[20:]
    for text in (b"counter\0", octets.to_bytes(8, "big"), packets.to_bytes(8, "big")):
        assert text in body


def test_element_as_this_kernel_writes_it_is_read_in_one_step_or_two() -> None:
    """The usual layout and one with a padding attribute (32-bit kernels) give the same values."""
    plain = "3c0001000c00010008000100050000002c0007000c000100636f756e746572001c0002000c00010000000000000003e80c000200"
    plain += "000000000000000a"
    padded = "400001000c0001000800010005000000300007000c000100636f756e74657200200002000400030"
    padded += "00c00010000000000000003e80c000200000000000000000a"
    for element in (plain, padded):
        octets = bytes.fromhex(element)
        data = bytes(20) + attribute(2, b"up\0") + attribute(3, octets)
        found = list(decode_elements(Reply(12, data, 20, len(data))))
        assert found == [("up", bytes.fromhex("05000000"), Stored(0, Tally(1000, 10)))]


@given(st.binary(max_size=300))
def test_no_octets_upset_the_decoder(data: bytes) -> None:
    """Whatever the message holds, decoding ends and raises nothing."""
    list(decode_elements(Reply(12, data, 0, len(data))))
    list(attributes(data, 0, len(data)))


@given(st.data(), puts)
def test_cut_messages_upset_nobody(data: st.DataObject, put: Put) -> None:
    """A message cut anywhere decodes to nothing or to a part, without an exception."""
    message = Encoder("postern").change(put, 1, 0)
    cut = data.draw(st.integers(20, len(message)))
    list(decode_elements(Reply(12, message[:cut], 20, cut)))


def test_dropping_names_the_key_only() -> None:
    """A DELSETELEM carries neither data nor lifetime: they would have to match."""
    message = Encoder("postern").change(Drop(AUTH4, WHO), 3, 0)
    assert list(decode_elements(reply_of(message))) == [("auth4_guest", WHO, Stored(0, Tally(0, 0)))]
    assert struct.unpack_from("=I", message, 8)[0] == 3  # the place comes back with an error


def test_fallback_says_elements_in_nft_words() -> None:
    """Keys, lifetimes, counters and marks as nft reads them."""
    assert name_put(Put(AUTH4, WHO, 7, 60)) == "02:00:5e:10:00:2a . 10.41.0.7 timeout 60s : 7"
    assert name_put(Put(AUTH6, bytes(MAC), 7)) == "02:00:5e:10:00:2a : 7"
    assert name_put(Put(BIND4, WHO)) == "02:00:5e:10:00:2a . 10.41.0.7"
    assert name_put(Put(UP, key_of_number(9), tally=Tally(100, 2))) == "9 counter packets 2 bytes 100"
    assert name_key(Kind.NUMBERS, key_of_number(300)) == "300"


def test_fallback_reads_listings() -> None:
    """Elements of sets and maps, with and without counters and lifetimes, from nft's JSON."""
    listed = (
        '{"nftables": [{"metainfo": {}}, {"set": {"name": "up", "elem": [65536, '
        '{"elem": {"val": 5, "counter": {"packets": 2, "bytes": 300}}}]}}]}'
    )
    assert read_listing(listed) == {
        key_of_number(65536): Stored(0, Tally(0, 0)),
        key_of_number(5): Stored(0, Tally(300, 2)),
    }
    mapped = (
        '{"nftables": [{"map": {"name": "auth4_guest", "elem": [[{"elem": {"val": {"concat": '
        '["02:00:5e:10:00:2a", "10.41.0.7"]}, "timeout": 60, "expires": 59}}, 7]]}}]}'
    )
    assert read_listing(mapped) == {WHO: Stored(7, Tally(0, 0), 60_000)}
    assert read_listing('{"nftables": [{"set": {"name": "up"}}]}') == {}
