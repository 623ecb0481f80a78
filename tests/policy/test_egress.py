"""Which addresses may be called when somebody else says which."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.policy.egress import Egress, Target


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://Hooks.Example.com", Target("https", "hooks.example.com", 443, "/")),
        ("https://hooks.example.com:8443/a/b?c=d#e", Target("https", "hooks.example.com", 8443, "/a/b?c=d")),
        ("https://hooks.example.com./a", Target("https", "hooks.example.com", 443, "/a")),
        ("https://93.184.216.34/a", Target("https", "93.184.216.34", 443, "/a")),
        ("https://[2606:2800:220:1::1]/a", Target("https", "2606:2800:220:1::1", 443, "/a")),
    ],
)
def test_a_public_url_says_where_it_leads(url: str, target: Target) -> None:
    assert Egress().target(url) == target


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://hooks.example.com/", "scheme"),
        ("ftp://hooks.example.com/", "scheme"),
        ("file:///etc/passwd", "scheme"),
        ("hooks.example.com", "scheme"),
        ("https://", "host"),
        ("https://user@hooks.example.com/", "user name"),
        ("https://user:secret@hooks.example.com/", "user name"),
        ("https://@hooks.example.com/", "user name"),
        ("https://h\u00f6st.example/", "ASCII"),
        ("https://hooks.example.com:port/", "can be read"),
        ("https://hooks.example.com:99999/", "can be read"),
        ("https://[::1/", "can be read"),
        ("https://hooks.example.com\\@10.0.0.1/", "backslashes"),
        ("https://hooks.example.com/\r\nhost: other", "control"),
        ("https://hooks.example.com/a b", "spaces"),
        ("https://hooks.example.com/" + "a" * 2048, "2048"),
        ("https://127.0.0.1/", "public"),
        ("https://[::1]/", "public"),
        ("https://[fe80::1%25eth0]/", "ASCII"),
        ("https://169.254.169.254/latest/meta-data", "public"),
    ],
)
def test_what_may_not_be_called_is_said(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Egress().target(url)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.2",
        "169.254.169.254",
        "172.16.0.1",
        "192.0.2.1",
        "192.168.0.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "2001:db8::1",
        "2002:7f00:1::1",
        "fc00::1",
        "fd12::1",
        "fe80::1",
        "fe80::1%eth0",
        "ff02::1",
    ],
)
def test_addresses_inside_are_refused(address: str) -> None:
    assert Egress().refuses(address)
    assert not Egress(private=True).refuses(address)


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "1.1.1.1", "2606:4700::1111", "64:ff9b::101:101", "::ffff:1.1.1.1"]
)
def test_public_addresses_are_not(address: str) -> None:
    assert not Egress().refuses(address)


@pytest.mark.parametrize(
    ("host", "fits"),
    [
        ("example.com", True),
        ("EXAMPLE.com", True),
        ("a.example.com", False),
        ("hooks.example.org", True),
        ("a.b.example.org", True),
        ("example.org", False),
        (".example.org", False),
        ("evilexample.org", False),
    ],
)
def test_only_listed_hosts_may_be_called(host: str, fits: bool) -> None:
    egress = Egress(hosts=("Example.com", "*.example.org"))
    if fits:
        assert egress.target(f"https://{host}/").host == host.lower()
    else:
        with pytest.raises(ValueError, match="none of the hosts"):
            egress.target(f"https://{host}/")


def test_a_host_that_is_listed_is_still_refused_inside() -> None:
    with pytest.raises(ValueError, match="public"):
        Egress(hosts=("127.0.0.1",)).target("https://127.0.0.1/")


def test_the_authority_has_the_port_that_the_scheme_does_not_imply() -> None:
    egress = Egress(plain=True, private=True)
    assert egress.target("http://a.example/").authority == "a.example"
    assert egress.target("http://a.example:443/").authority == "a.example:443"
    assert egress.target("https://[::1]:8443/").authority == "[::1]:8443"


@given(st.text(max_size=60))
def test_anything_is_a_target_or_a_reason(text: str) -> None:
    for url in (text, f"https://{text}", f"https://{text}.example/"):
        try:
            target = Egress().target(url)
        except ValueError:
            continue
        assert target.scheme == "https"
        assert target.host.isascii()
        assert 0 <= target.port < 65536
