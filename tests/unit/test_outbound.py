"""Requests to the outside: URLs and which addresses may be reached."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrepot.outbound import InvalidRequestError, Policy
from entrepot.outbound.url import parse


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://example.com", ("https", "example.com", 443, "/", "example.com")),
        ("http://127.0.0.1:8080/a%20b?x=1&y=%2F", ("http", "127.0.0.1", 8080, "/a%20b?x=1&y=%2F", "127.0.0.1:8080")),
        ("https://[::1]:9/ü", ("https", "::1", 9, "/%C3%BC", "[::1]:9")),
        ("https://Bücher.example./", ("https", "xn--bcher-kva.example", 443, "/", "xn--bcher-kva.example")),
    ],
)
def test_urls_are_taken_apart(url: str, place: tuple[str, str, int, str, str]) -> None:
    found = parse(url)
    assert (found.scheme, found.host, found.port, found.target, found.authority) == place


@pytest.mark.parametrize(
    "url",
    ["", "example.com", "ftp://example.com", "file:///etc/passwd", "https://", "https://user:secret@example.com/",
     "https://example.com/a b", "https://example.com/\r\nX: y", "https://example.com:99999/", "https://[::1", "http://\0/",
     "https://example.com/" + "a" * 9000],
)  # fmt: skip
def test_what_is_no_url_is_refused_without_telling_secrets(url: str) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        parse(url)
    assert "secret" not in str(refusal.value)


@given(st.text(max_size=200))
def test_any_text_gives_a_clean_place_or_a_refusal(text: str) -> None:
    for url in (text, "https://" + text, "https://example.com/" + text):
        try:
            place = parse(url)
        except InvalidRequestError:
            continue
        assert place.target.isascii() and place.target.isprintable() and " " not in place.target
        assert place.host.isascii()


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "fe80::1%eth0", "0.0.0.0",
     "::", "fd00:ec2::254", "224.0.0.1"],
)  # fmt: skip
def test_a_clouds_metadata_is_denied_in_every_spelling(address: str) -> None:
    assert not Policy.of().allows(address, tls=True)


def test_plain_http_stays_on_this_machine() -> None:
    policy = Policy.of()
    assert policy.allows("127.0.0.1", tls=False) and policy.allows("::1", tls=False)
    assert policy.allows("192.0.2.1", tls=True) and not policy.allows("192.0.2.1", tls=False)
    assert Policy.of(plain_http_networks=["192.0.2.0/24"]).allows("192.0.2.1", tls=False)


def test_denied_wins_over_plain_http() -> None:
    policy = Policy.of(["127.0.0.0/8"], ["127.0.0.0/8"])
    assert not policy.allows("127.0.0.1", tls=False) and not policy.allows("127.0.0.1", tls=True)
