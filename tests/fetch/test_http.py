"""Downloads from a server that does what servers do: versions, redirects, faults."""

import hashlib
import io
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from imagekit.errors import CancelledError, FetchError
from imagekit.fetch import Downloader
from imagekit.fetch.http import Http
from imagekit.fetch.reach import Reach
from imagekit.registry.transport import Timeouts
from tests.support.web import Page, Web, versioned

BODY = bytes(range(256)) * 1000
DATE = "Wed, 21 Oct 2015 07:28:00 GMT"


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def downloader(waits: list[float]) -> Iterator[Downloader]:
    made = Downloader(max_size=1 << 20, sleep=waits.append)
    yield made
    made.close()


def code_of(download: Callable[[], object]) -> str:
    with pytest.raises(FetchError) as caught:
        download()
    return caught.value.code


def test_a_download_has_its_digest_its_size_and_its_time(web: Web, downloader: Downloader) -> None:
    web.pages["/f"] = Page(body=BODY, headers={"Last-Modified": DATE, "ETag": '"1"'})
    file = io.BytesIO()
    found = downloader.download(f"{web.url}/f", file)
    assert found is not None
    assert file.getvalue() == BODY
    assert found.digest.hex == hashlib.sha256(BODY).hexdigest()
    assert (found.size, found.mtime) == (len(BODY), 1445412480)
    assert (found.etag, found.modified) == ('"1"', DATE)


@pytest.mark.parametrize("date", ["", "yesterday", "Thu, 01 Jan 1880 00:00:00 GMT"])
def test_without_a_usable_date_the_time_is_the_epoch(
    web: Web, downloader: Downloader, date: str
) -> None:
    web.pages["/f"] = Page(body=b"x", headers={"Last-Modified": date} if date else {})
    found = downloader.download(f"{web.url}/f", io.BytesIO())
    assert found is not None
    assert found.mtime == 0


def test_an_unchanged_file_is_not_sent_again(web: Web, downloader: Downloader) -> None:
    web.pages["/f"] = versioned(BODY, '"1"')
    assert downloader.download(f"{web.url}/f", io.BytesIO(), etag='"1"') is None
    assert downloader.download(f"{web.url}/f", io.BytesIO(), etag='"0"') is not None


def test_where_there_is_no_version_the_date_is_asked_with(
    web: Web, downloader: Downloader
) -> None:
    web.pages["/f"] = Page(status=304)
    assert downloader.download(f"{web.url}/f", io.BytesIO(), modified=DATE) is None
    assert web.asked("if-modified-since") == [DATE]


def test_an_answer_of_304_that_was_not_asked_for_is_a_failure(
    web: Web, downloader: Downloader
) -> None:
    web.pages["/f"] = Page(status=304)
    assert code_of(lambda: downloader.download(f"{web.url}/f", io.BytesIO())) == "http-status"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 501])
def test_a_refusal_is_told_at_once(
    web: Web, downloader: Downloader, waits: list[float], status: int
) -> None:
    web.pages["/f"] = Page(status=status)
    with pytest.raises(FetchError) as caught:
        downloader.download(f"{web.url}/f", io.BytesIO())
    assert (caught.value.code, caught.value.status) == ("http-status", status)
    assert (len(web.requests), waits) == (1, [])


def test_a_server_in_trouble_is_asked_again(
    web: Web, downloader: Downloader, waits: list[float]
) -> None:
    web.pages["/f"] = [Page(status=503), Page(status=429), Page(body=b"x")]
    assert downloader.download(f"{web.url}/f", io.BytesIO()) is not None
    assert waits == [0.25, 0.5]


def test_a_server_that_stays_in_trouble_is_given_up(web: Web, downloader: Downloader) -> None:
    web.pages["/f"] = Page(status=500)
    assert code_of(lambda: downloader.download(f"{web.url}/f", io.BytesIO())) == "http-status"
    assert len(web.requests) == 4


def test_a_body_that_breaks_off_is_continued(web: Web, downloader: Downloader) -> None:
    whole = versioned(BODY, '"1"')
    first = [Page(body=BODY, headers={"ETag": '"1"'}, cut=70_000)]
    web.pages["/f"] = lambda headers: first.pop() if first else whole(headers)
    file = io.BytesIO()
    found = downloader.download(f"{web.url}/f", file)
    assert found is not None
    assert file.getvalue() == BODY
    assert found.digest.hex == hashlib.sha256(BODY).hexdigest()
    (wanted,) = web.asked("range")
    assert wanted != "bytes=0-"
    assert web.asked("if-range") == ['"1"']


def test_what_changed_meanwhile_is_begun_again(web: Web, downloader: Downloader) -> None:
    later = versioned(b"new" * 1000, '"2"')
    first = [Page(body=BODY, headers={"ETag": '"1"'}, cut=70_000)]
    web.pages["/f"] = lambda headers: first.pop() if first else later(headers)
    file = io.BytesIO()
    found = downloader.download(f"{web.url}/f", file)
    assert found is not None
    assert file.getvalue() == b"new" * 1000
    assert found.etag == '"2"'


@pytest.mark.parametrize("etag", ["", 'W/"1"'])
def test_without_a_strong_version_nothing_is_continued(
    web: Web, downloader: Downloader, etag: str
) -> None:
    said = {"ETag": etag} if etag else {}
    web.pages["/f"] = [Page(body=BODY, headers=said, cut=70_000), Page(body=BODY, headers=said)]
    file = io.BytesIO()
    downloader.download(f"{web.url}/f", file)
    assert file.getvalue() == BODY
    assert web.asked("range") == []


def test_another_part_than_asked_for_is_refused(web: Web, downloader: Downloader) -> None:
    wrong = Page(status=206, body=BODY[5:], headers={"Content-Range": "bytes 5-9/10"})
    web.pages["/f"] = [Page(body=BODY, headers={"ETag": '"1"'}, cut=70_000), wrong]
    assert code_of(lambda: downloader.download(f"{web.url}/f", io.BytesIO())) == "fetch"


def test_a_body_that_always_breaks_off_is_a_failure(web: Web, downloader: Downloader) -> None:
    web.pages["/f"] = Page(body=BODY, cut=100)
    assert code_of(lambda: downloader.download(f"{web.url}/f", io.BytesIO())) == "unreachable"


@pytest.mark.parametrize("length", [True, False])
def test_a_body_past_the_limit_is_refused(
    web: Web, downloader: Downloader, *, length: bool
) -> None:
    web.pages["/f"] = Page(body=bytes((1 << 20) + 1), length=length)
    assert code_of(lambda: downloader.download(f"{web.url}/f", io.BytesIO())) == "too-large"


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_checksum_is_of_the_body(web: Web, downloader: Downloader, algorithm: str) -> None:
    web.pages["/f"] = Page(body=BODY)
    right = f"{algorithm}:{hashlib.new(algorithm, BODY).hexdigest()}"
    wrong = f"{algorithm}:{hashlib.new(algorithm, b'').hexdigest()}"
    url = f"{web.url}/f"
    assert downloader.download(url, io.BytesIO(), checksum=right) is not None
    assert code_of(lambda: downloader.download(url, io.BytesIO(), checksum=wrong)) == (
        "checksum-mismatch"
    )


def redirects(web: Web, count: int) -> str:
    for n in range(count):
        web.pages[f"/{n}"] = Page(status=302, headers={"Location": f"{n + 1}"})
    web.pages[f"/{count}"] = Page(body=b"there")
    return f"{web.url}/0"


def test_five_redirects_are_followed_and_six_are_not(web: Web, downloader: Downloader) -> None:
    file = io.BytesIO()
    downloader.download(redirects(web, 5), file)
    assert file.getvalue() == b"there"
    assert code_of(lambda: downloader.download(redirects(web, 6), io.BytesIO())) == "redirect"


def test_a_loop_of_redirects_ends(web: Web, downloader: Downloader) -> None:
    web.pages["/f"] = Page(status=301, headers={"Location": "/f"})
    assert code_of(lambda: downloader.download(f"{web.url}/f", io.BytesIO())) == "redirect"
    assert len(web.requests) == 6


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("http://169.254.169.254/latest/meta-data/", "address-refused"),
        ("http://h.example/", "insecure-url"),
        ("file:///etc/passwd", "url-invalid"),
        ("http://user:canary@127.0.0.1/", "redirect"),
        ("", "redirect"),
    ],
)
def test_redirects_go_nowhere_else(
    web: Web, downloader: Downloader, target: str, code: str
) -> None:
    web.pages["/f"] = Page(status=302, headers={"Location": target})
    with pytest.raises(FetchError) as caught:
        downloader.download(f"{web.url}/f", io.BytesIO())
    assert caught.value.code == code
    assert "canary" not in str(caught.value)


def test_a_name_that_leads_to_this_machine_is_refused(
    web: Web, downloader: Downloader, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_up = socket.getaddrinfo

    def here(host: Any, *rest: Any, **options: Any) -> Any:
        return look_up("127.0.0.1" if host == "h.example" else host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", here)
    web.pages["/f"] = Page(body=b"secret")
    url = web.url.replace("127.0.0.1", "h.example") + "/f"
    pinned = f"sha256:{'0' * 64}"  # what is pinned may come without TLS, but not from here
    assert code_of(lambda: downloader.download(url, io.BytesIO(), checksum=pinned)) == (
        "address-refused"
    )
    assert web.requests == []


def test_no_credentials_are_taken_or_sent(
    web: Web, downloader: Downloader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login user password canary\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HOME", str(tmp_path))
    web.pages["/f"] = Page(body=b"x", headers={"Set-Cookie": "a=b"})
    for _ in range(2):
        downloader.download(f"{web.url}/f", io.BytesIO())
    assert web.asked("authorization") == web.asked("cookie") == []
    url = web.url.replace("//", "//user:canary@")
    with pytest.raises(FetchError) as caught:
        downloader.download(f"{url}/f", io.BytesIO())
    assert caught.value.code == "credentials"
    assert "canary" not in str(caught.value)


def test_a_server_that_falls_silent_is_not_waited_for(web: Web) -> None:
    over = threading.Event()
    web.pages["/f"] = Page(body=BODY, wait=over)
    http = Http(
        Reach(),
        max_size=1 << 20,
        timeouts=Timeouts(idle=0.1),
        cancelled=lambda: False,
        sleep=lambda _: None,
    )
    try:
        assert code_of(lambda: http.download(f"{web.url}/f", io.BytesIO())) == "timeout"
    finally:
        over.set()
        http.close()


def test_nobody_listening_is_told(downloader: Downloader) -> None:
    assert code_of(lambda: downloader.download("http://127.0.0.1:9/", io.BytesIO())) == (
        "unreachable"
    )


def test_a_cancelled_download_stops(web: Web) -> None:
    web.pages["/f"] = Page(body=BODY)
    cancelled = threading.Event()
    downloader = Downloader(cancelled=cancelled.is_set)
    try:
        with pytest.raises(CancelledError):
            downloader.download(
                f"{web.url}/f", io.BytesIO(), progress=lambda _done, _total: cancelled.set()
            )
    finally:
        downloader.close()
