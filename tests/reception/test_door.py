"""Who may call (P11), without a network."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tfkt_node.reception.door import (
    LOOKED_UP_S,
    UNKNOWN_CALLER,
    WRONG_CALLED_TITLE,
    WRONG_NETWORK,
    Door,
    resolve,
)
from tfkt_node.settings import Peer, Reception

BEYOND = Reception(host="0.0.0.0")
PEERS = [
    Peer(name="ct1", ae_title="CT_ONE", network="10.1.0.0/16", send=True),
    Peer(name="ct1b", ae_title="CT_ONE", network="10.9.9.9", send=True),
    Peer(name="pacs", ae_title="PACS", host="pacs.example", send=True),
    Peer(name="out", ae_title="OUT_ONLY", host="10.1.0.7", deliver=True),
]


def look_up(host):
    return {"pacs.example": ["192.0.2.5", "2001:db8::5"]}.get(host, [])


@pytest.mark.parametrize(
    ("calling", "address", "expected"),
    [
        ("CT_ONE", "10.1.2.3", None),
        ("CT_ONE ", "10.1.2.3", None),
        ("CT_ONE", "::ffff:10.1.2.3", None),
        ("CT_ONE", "10.9.9.9", None),
        ("CT_ONE", "10.2.0.1", WRONG_NETWORK),
        ("ct_one", "10.1.2.3", UNKNOWN_CALLER),
        ("PACS", "192.0.2.5", None),
        ("PACS", "2001:db8::5", None),
        ("PACS", "192.0.2.6", WRONG_NETWORK),
        ("OUT_ONLY", "10.1.0.7", UNKNOWN_CALLER),
        ("", "10.1.2.3", UNKNOWN_CALLER),
        ("CT_ONE", "127.0.0.1", WRONG_NETWORK),
    ],
)
def test_p11_title_and_network_must_both_match(calling, address, expected):
    """P11: beyond loopback a caller needs title and address of one peer with send = true."""
    door = Door(BEYOND, PEERS, look_up)

    assert door.rejection(calling, "TFKT_NODE", address) == expected


def test_p11_nobody_calls_without_peers():
    """P11: beyond loopback and without peers everybody is turned away."""
    assert Door(BEYOND, ()).rejection("CT_ONE", "TFKT_NODE", "10.1.2.3") == UNKNOWN_CALLER


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_p11_on_loopback_any_caller_is_admitted(host):
    """P11: on loopback any calling title is admitted, and the called title still counts."""
    door = Door(Reception(host=host), ())

    assert door.rejection("ANYONE", "TFKT_NODE", "127.0.0.1") is None
    assert door.rejection("ANYONE", "TFKT_node", "127.0.0.1") == WRONG_CALLED_TITLE


@pytest.mark.parametrize("host", ["pacs..local", "x" * 64])
def test_p11_name_that_cannot_be_looked_up_has_no_address(host):
    """P11: a host that is no name has no address, and is no fault."""
    assert resolve(host) == []


@pytest.mark.parametrize(
    ("address", "known"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.9.9.9", True),
        ("2001:db8::5", True),
        ("10.1.0.7", True),
        ("10.9.9.8", False),
        ("127.0.0.1", False),
    ],
)
def test_p11_address_must_be_of_a_sender(address, known):
    """P11: before a word is heard, the address alone must be one that a sender calls from."""
    assert Door(BEYOND, PEERS, look_up).knows(address) is known


def test_p11_every_address_is_known_on_loopback():
    """P11: on loopback there are no strangers."""
    assert Door(Reception(), ()).knows("127.0.0.1")


def test_p7_name_is_looked_up_once_for_many_callers():
    """P7: however many strangers call, a slow name server is asked by one of them."""
    asked, may_answer = [], threading.Event()

    def slow(host):
        asked.append(host)
        may_answer.wait(20)
        return look_up(host)

    door = Door(BEYOND, PEERS, slow)
    with ThreadPoolExecutor(20) as pool:
        answers = [pool.submit(door.knows, "10.9.9.8") for _ in range(20)]
        may_answer.set()

    assert {answer.result() for answer in answers} == {False}
    assert asked == ["pacs.example"]


def test_name_is_looked_up_again_after_a_while():
    """A peer whose address has changed is known again soon."""
    now, addresses = [1000.0], ["192.0.2.5"]
    door = Door(BEYOND, PEERS, lambda host: addresses, lambda: now[0])

    before = door.knows("192.0.2.5"), door.knows("192.0.2.6")
    addresses[:] = ["192.0.2.6"]
    now[0] += LOOKED_UP_S - 1
    meanwhile = door.knows("192.0.2.5"), door.knows("192.0.2.6")
    now[0] += 1
    after = door.knows("192.0.2.5"), door.knows("192.0.2.6")

    assert [before, meanwhile, after] == [(True, False), (True, False), (False, True)]


def test_p7_listed_network_waits_for_no_name():
    """P7: a sender that is listed by its network gets in while a name of another is looked up."""

    def never(host):
        raise AssertionError(host)

    assert Door(BEYOND, PEERS[::-1], never).knows("10.1.2.3")
