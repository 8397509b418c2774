"""Where downloads may go, and where redirects may lead."""

from ipaddress import ip_address

import pytest

from imagekit.errors import FetchError
from imagekit.fetch.reach import Reach

HOST = "https://h.example/"


@pytest.mark.parametrize(
    "url",
    [
        "https://h.example/f",
        "https://10.0.0.1/f",
        "http://127.0.0.1:8080/f",
        "http://localhost/f",
        "http://[::1]:80/f",
        "ssh://git@h.example/r",
    ],
)
def test_tls_and_this_machine_by_its_name_are_allowed(url: str) -> None:
    assert Reach().check(url).hostname


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://h.example/f", "insecure-url"),
        ("git://h.example/r", "insecure-url"),
        ("https://169.254.169.254/latest", "address-refused"),
        ("https://[fe80::1]/", "address-refused"),
        ("https://[fd00:ec2::254]/", "address-refused"),
        ("https://[::ffff:169.254.169.254]/", "address-refused"),
        ("https://100.100.100.200/", "address-refused"),
        ("https://0.0.0.0/", "address-refused"),
        ("https://224.0.0.1/", "address-refused"),
        ("file:///etc/passwd", "url-invalid"),
        ("ext::sh -c id", "url-invalid"),
        ("ftp://h.example/", "url-invalid"),
        ("https:///f", "url-invalid"),
        ("https://h.example:0/", "url-invalid"),
        ("https://h.example:port/", "url-invalid"),
        ("https://h.example/a\r\nHost: x", "url-invalid"),
        ("https://h.example/a b", "url-invalid"),
    ],
)
def test_what_is_refused_says_why(url: str, code: str) -> None:
    with pytest.raises(FetchError) as caught:
        Reach().check(url)
    assert caught.value.code == code


def test_what_is_pinned_may_come_without_tls() -> None:
    Reach().check("http://h.example/f", pinned=True)


@pytest.mark.parametrize("listed", ["h.example", "h.example:80"])
def test_a_listed_host_is_spoken_to_without_tls_at_any_address(listed: str) -> None:
    reach = Reach(frozenset([listed]))
    reach.check("http://h.example/f")
    reach.check_address("http://h.example/f", ip_address("169.254.169.254"))


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1", "169.254.1.1", "0.0.0.0"]
)
def test_a_name_does_not_lead_where_an_address_may_not(address: str) -> None:
    with pytest.raises(FetchError) as caught:
        Reach().check_address(HOST, ip_address(address))
    assert caught.value.code == "address-refused"


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "93.184.215.14"])
def test_a_machine_may_be_asked_at_the_address_that_its_name_has(address: str) -> None:
    host = "localhost" if address.startswith("127") else "h.example"
    Reach().check_address(f"http://{host}/", ip_address(address))


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("http://127.0.0.1/", "address-refused"),
        ("http://localhost/", "address-refused"),
        ("https://[::1]/", "address-refused"),
        ("https://169.254.169.254/", "address-refused"),
        ("http://h.example/", "insecure-url"),
        ("file:///etc/passwd", "url-invalid"),
    ],
)
def test_redirects_lead_to_no_place_that_the_url_itself_could_not_name(
    target: str, code: str
) -> None:
    with pytest.raises(FetchError) as caught:
        Reach().check_redirect(HOST, target, origin=HOST, pinned=False)
    assert caught.value.code == code


def test_no_redirect_leaves_tls_even_for_what_is_pinned_or_listed() -> None:
    reach = Reach(frozenset(["other.example"]))
    with pytest.raises(FetchError) as caught:
        reach.check_redirect(HOST, "http://other.example/", origin=HOST, pinned=True)
    assert caught.value.code == "redirect"


def test_messages_show_no_credentials() -> None:
    with pytest.raises(FetchError) as caught:
        Reach().check("http://user:canary@h.example/f?X-Amz-Signature=canary")
    assert "canary" not in caught.value.message + caught.value.hint
