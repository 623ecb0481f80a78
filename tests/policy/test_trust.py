"""Whom TrustList believes."""

from __future__ import annotations

import pytest

from sojourn.config import Proxy
from sojourn.errors import ConfigError
from sojourn.policy import trust
from sojourn.policy.trust import TrustList


@pytest.mark.parametrize(
    ("entries", "host", "believed"),
    [
        (["10.0.0.1"], "10.0.0.1", True),
        (["10.0.0.1"], "10.0.0.2", False),
        (["10.0.0.0/8"], "10.255.0.1", True),
        (["10.0.0.0/8"], "11.0.0.1", False),
        ([" 10.0.0.0/8 "], "10.0.0.1", True),
        (["10.0.0.0/255.0.0.0"], "10.1.0.1", True),
        (["10.0.0.0/8"], "::ffff:10.0.0.1", True),
        (["::ffff:10.0.0.1"], "10.0.0.1", True),
        (["::ffff:10.0.0.0/104"], "10.9.9.9", True),
        (["2001:db8::/32"], "2001:db8::1", True),
        (["2001:db8::/32"], "2001:0DB8:0:0::1", True),
        (["2001:db8::/32"], "2001:db9::1", False),
        (["fe80::/10"], "fe80::1%eth0", True),
        (["0.0.0.0/0"], "::1", False),
        (["unix"], "unix", True),
        (["10.0.0.0/8"], "unix", False),
        (["unix"], "127.0.0.1", False),
        (["*"], "unix", True),
        (["*"], "203.0.113.9", True),
        (["*"], "whatever", True),
        (["10.0.0.0/8"], "proxy.example", False),
        (["10.0.0.0/8"], "", False),
        ([], "127.0.0.1", False),
        (Proxy().trusted, "127.0.0.1", True),
        (Proxy().trusted, "::1", True),
        (Proxy().trusted, "unix", True),
        (Proxy().trusted, "192.0.2.1", False),
    ],
)
def test_trusts_what_is_listed_and_nothing_else(entries: list[str], host: str, believed: bool) -> None:
    trusted = TrustList(entries)
    assert trusted.trusts(host) is believed
    assert trusted.trusts(host) is believed  # from the cache


@pytest.mark.parametrize("entry", ["", "proxy.example", "10.0.0.300", "10.0.0.0/33", "localhost", "10.0.0.1:80"])
def test_a_bad_entry_names_the_key_and_itself(entry: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TrustList(["10.0.0.1", entry])
    assert caught.value.key == "proxy.trusted"
    assert repr(entry) in str(caught.value)


@pytest.mark.parametrize(("entry", "meant"), [("10.0.0.1/8", "10.0.0.0/8"), ("2001:db8::1/32", "2001:db8::/32")])
def test_a_network_with_host_bits_is_a_typo(entry: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean {meant}"):
        TrustList([entry])


def test_clients_can_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust, "CACHED", 8)
    trusted = TrustList(["10.0.0.7"])
    for number in range(100):
        assert trusted.trusts(f"10.0.0.{number}") is (number == 7)
        assert len(trusted._answers) <= 8
