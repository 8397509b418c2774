"""What can be asked of a registry: manifests, blobs and tags, each as one flow.

A flow here yields calls to paths at the registry; tries, redirects and credentials are put around
it (`retry`, `access`, `auth`). Uploads are in `uploads`.

Spec: distribution-spec, Pull, Push, Content Discovery; registry spec sections 5, 6, 8.
"""

import base64
import io
import re
from typing import Final
from urllib.parse import urljoin, urlsplit

from attrs import evolve, frozen

from imagekit.errors import (
    DigestMismatchError,
    InvalidDigestError,
    RegistryError,
)
from imagekit.oci.descriptor import INDEX_TYPES, MANIFEST_TYPES, Descriptor
from imagekit.oci.digest import Digest, hasher
from imagekit.oci.document import MAX_DOCUMENT, Document
from imagekit.oci.manifest import Index, Manifest, decode_manifest
from imagekit.registry.calls import Call, Flow, Reply, redact_url
from imagekit.registry.problems import error_of

MAX_TAG_PAGES: Final = 10_000
_PAGE_SIZE: Final = 1_000
_DOCUMENT_TYPES: Final = INDEX_TYPES | MANIFEST_TYPES
_ACCEPT: Final = (("accept", ", ".join(sorted(_DOCUMENT_TYPES, reverse=True))),)
_HTML: Final = frozenset(("text/html", "application/xhtml+xml"))
_LINK: Final = re.compile(r"<([^<>]*)>\s*((?:;[^,]*)?)")
_LINK_NEXT: Final = re.compile(r""";\s*rel\s*=\s*(?:"[^"]*\bnext\b[^"]*"|next\b)""", re.IGNORECASE)
_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


def pull_scope(repository: str) -> str:
    """What a token must allow for reading."""
    return f"repository:{repository}:pull"


def push_scope(repository: str) -> str:
    """What a token must allow for writing."""
    return f"repository:{repository}:pull,push"


def get_manifest(repository: str, name: str | Digest) -> Flow[Document[Manifest | Index]]:
    """A manifest or index by tag or digest, checked against the digest if that was the name.

    Raises:
        ImageNotFoundError: there is none.
        DigestMismatchError: other bytes than were asked for, or than the answer itself states.
        InvalidDocumentError: the bytes are neither a manifest nor an index, or not what their
            media type says.
    """
    reply = yield _manifest_call("GET", repository, name)
    what = f"manifest {name} of {repository}"
    if reply.status != 200:
        raise error_of(reply, what)
    if reply.media_type in _HTML:
        raise RegistryError(
            f"{what}: {urlsplit(reply.url).netloc} answered with an HTML page",
            status=200,
            code="not-a-registry",
            hint="check host and port; a login page of the network may be in between",
        )
    _check_stated_digest(reply, what)
    if not isinstance(name, Digest):
        return decode_manifest(reply.body, reply.media_type)
    check_digest(name, reply.body, what)
    document = decode_manifest(reply.body, reply.media_type)
    return evolve(document, descriptor=evolve(document.descriptor, digest=name))


def resolve(repository: str, name: str | Digest) -> Flow[Descriptor]:
    """The descriptor of a manifest or index; its digest is a claim until the bytes are read.

    It is asked for by HEAD, which Docker Hub does not count; a registry that leaves out size, type
    or digest is asked by GET.

    Raises:
        ImageNotFoundError: there is none.
        DigestMismatchError: the registry names another digest than was asked for.
    """
    reply = yield _manifest_call("HEAD", repository, name)
    if reply.status == 404:
        raise error_of(reply, f"manifest {name} of {repository}")
    stated = _digest_of(reply)
    size = reply.header("content-length")
    known = reply.media_type in _DOCUMENT_TYPES and size.isascii() and size.isdigit()
    if reply.status != 200 or stated is None or not known or int(size) > MAX_DOCUMENT:
        # An error answer to HEAD has no message either, so asking by GET serves both.
        document = yield from get_manifest(repository, name)
        return document.descriptor
    if isinstance(name, Digest) and stated != name:
        raise DigestMismatchError(f"manifest of {repository}: want {name}, got {stated}")
    return Descriptor(media_type=reply.media_type, digest=stated, size=int(size))


def manifest_exists(repository: str, descriptor: Descriptor, scope: str) -> Flow[bool]:
    """Whether the manifest is there.

    Raises:
        RegistryError: the registry does not say.
    """
    call = _manifest_call("HEAD", repository, descriptor.digest)
    reply = yield evolve(call, scopes=(scope,))
    if reply.status not in (200, 404):
        raise error_of(reply, f"manifest {descriptor.digest} of {repository}")
    return reply.status == 200


def put_manifest(repository: str, name: str, raw: bytes, media_type: str) -> Flow[None]:
    """Store a manifest or index, as these very bytes, under a tag or its digest.

    Registries that settle late may not see a blob that was just stored, so that answer is not
    believed the first time.

    Raises:
        DigestMismatchError: the registry stored something else.
        RegistryError: it refused.
    """
    what = f"manifest {name} of {repository}, {len(raw)} bytes"
    call = Call(
        method="PUT",
        url=f"/v2/{repository}/manifests/{name}",
        headers=(("content-type", media_type),),
        body=BytesBody(raw),
        repository=repository,
        scopes=(push_scope(repository),),
    )
    reply = yield call
    if reply.status in (400, 404):
        error = error_of(reply, what)
        if {"MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN"} & set(error.codes):
            reply = yield evolve(call, delay=1.0)
    if reply.status not in (200, 201, 202):
        raise error_of(reply, what)
    stated = _digest_of(reply)
    if stated is not None:
        check_digest(stated, raw, what)


def blob_exists(
    repository: str, descriptor: Descriptor, scope: str, *, delay: float = 0.0
) -> Flow[bool]:
    """Whether the blob is there, with the right size where the registry states it.

    Raises:
        RegistryError: the registry does not say.
    """
    reply = yield Call(
        method="HEAD",
        url=_blob_path(repository, descriptor),
        repository=repository,
        scopes=(scope,),
        delay=delay,
    )
    if reply.status not in (200, 404):
        raise error_of(reply, f"blob {descriptor.digest} of {repository}")
    size = reply.header("content-length")
    return reply.status == 200 and size in ("", str(descriptor.size))


def exists(repository: str, descriptor: Descriptor, *, push: bool) -> Flow[bool]:
    """Whether a blob or manifest is there.

    Raises:
        RegistryError: the registry does not say.
    """
    scope = push_scope(repository) if push else pull_scope(repository)
    if descriptor.media_type in _DOCUMENT_TYPES:
        return (yield from manifest_exists(repository, descriptor, scope))
    return (yield from blob_exists(repository, descriptor, scope))


def inline_bytes(descriptor: Descriptor) -> bytes | None:
    """The bytes that the descriptor itself brings, if they are right (image-spec, `data`)."""
    if not descriptor.data or descriptor.size > MAX_DOCUMENT:
        return None
    try:
        data = base64.b64decode(descriptor.data, validate=True)
        check_digest(descriptor.digest, data, "data of a descriptor")
    except (ValueError, DigestMismatchError):
        return None
    return data if len(data) == descriptor.size else None


@frozen(kw_only=True)
class BlobPart:
    """The answer to a request for a blob from `offset` on; whoever takes it closes its stream."""

    reply: Reply
    offset: int

    def check(self, descriptor: Descriptor) -> int:
        """How many of its bytes come before the offset.

        Raises:
            RegistryError: it is another part than was asked for, or encoded.
        """
        encoding = self.reply.header("content-encoding")
        if encoding not in ("", "identity"):
            raise RegistryError(
                f"blob {descriptor.digest}: encoded as {encoding[:40]!r}, not asked for",
                code="content-encoding",
            )
        if self.reply.status == 200:
            return self.offset
        stated = self.reply.header("content-range")
        match = _CONTENT_RANGE.fullmatch(stated)
        right = match is not None and match[3] in ("*", str(descriptor.size))
        if match is None or not right or not self.offset or int(match[1]) != self.offset:
            raise RegistryError(
                f"blob {descriptor.digest}: asked for bytes from {self.offset}, got {stated!r}"[
                    :300
                ],
                status=206,
                code="bad-range",
            )
        return 0


def get_blob(
    repository: str, descriptor: Descriptor, *, offset: int = 0, etag: str = "", delay: float = 0.0
) -> Flow[BlobPart]:
    """Begin to read a blob at an offset; neither part nor bytes are checked here.

    Args:
        repository: where it is.
        descriptor: which.
        offset: how many of its bytes are there already.
        etag: as an earlier part stated it, so that the rest is of the same bytes.
        delay: seconds to wait first.

    Raises:
        ImageNotFoundError: there is no such blob.
        RegistryError: another answer than bytes.
    """
    headers = [("range", f"bytes={offset}-")] if offset else []
    if offset and etag.startswith('"'):
        headers.append(("if-range", etag))
    reply = yield Call(
        method="GET",
        url=_blob_path(repository, descriptor),
        headers=tuple(headers),
        repository=repository,
        scopes=(pull_scope(repository),),
        stream=True,
        delay=delay,
    )
    if reply.status not in (200, 206):
        raise error_of(reply, f"blob {descriptor.digest} of {repository}")
    return BlobPart(reply=reply, offset=offset)


def list_tags(repository: str) -> Flow[tuple[str, ...]]:
    """All tags, in the order that the registry gives them.

    Raises:
        ImageNotFoundError: there is no such repository.
        RegistryError: pages without end, or one that is no list of tags.
    """
    url = f"/v2/{repository}/tags/list?n={_PAGE_SIZE}"
    tags: dict[str, None] = {}
    seen: set[str] = set()
    what = f"tags of {repository}"
    while url and url not in seen:
        if len(seen) >= MAX_TAG_PAGES:
            raise RegistryError(f"{what}: more than {MAX_TAG_PAGES} pages", code="too-large")
        seen.add(url)
        reply = yield Call(
            method="GET", url=url, repository=repository, scopes=(pull_scope(repository),)
        )
        if reply.status != 200:
            raise error_of(reply, what)
        page = reply.json()
        if not isinstance(page, dict) or not isinstance(page.get("tags") or [], list):
            raise RegistryError(f"{what}: the answer is no list of tags", code="not-a-registry")
        found = (t for t in page.get("tags") or [] if isinstance(t, str))
        tags.update((t, None) for t in found if _TAG.fullmatch(t))
        url = _next_page(reply, what)
    return tuple(tags)


@frozen
class BytesBody:
    """Bytes in memory, to be sent."""

    data: bytes

    @property
    def size(self) -> int:
        """See `Body`."""
        return len(self.data)

    def open(self) -> io.BytesIO:
        """See `Body`."""
        return io.BytesIO(self.data)


def check_digest(digest: Digest, data: bytes, what: str) -> None:
    """Check that these bytes are those of the digest.

    Raises:
        DigestMismatchError: they are not; the message names both sides.
    """
    content = hasher(digest.algorithm)
    content.update(data)
    got = f"{digest.algorithm}:{content.hexdigest()}"
    if got != str(digest):
        raise DigestMismatchError(f"{what}: want {digest}, got {got} of {len(data)} bytes")


def _manifest_call(method: str, repository: str, name: str | Digest) -> Call:
    return Call(
        method=method,
        url=f"/v2/{repository}/manifests/{name}",
        headers=_ACCEPT,
        repository=repository,
        scopes=(pull_scope(repository),),
    )


def _blob_path(repository: str, descriptor: Descriptor) -> str:
    return f"/v2/{repository}/blobs/{descriptor.digest}"


def _digest_of(reply: Reply) -> Digest | None:
    """What Docker-Content-Digest states; None without one that we know."""
    try:
        return Digest.parse(reply.header("docker-content-digest"))
    except InvalidDigestError:
        return None


def _check_stated_digest(reply: Reply, what: str) -> None:
    stated = _digest_of(reply)
    if stated is not None:
        check_digest(stated, reply.body, what)


def _next_page(reply: Reply, what: str) -> str:
    for header in reply.all_headers("link"):
        for target, parameters in _LINK.findall(header):
            if not _LINK_NEXT.search(parameters):
                continue
            url: str = urljoin(reply.url, target)
            if urlsplit(url)[:2] != urlsplit(reply.url)[:2]:
                raise RegistryError(
                    f"{what}: the next page is at another host: {redact_url(url)}", code="redirect"
                )
            return url
    return ""


__all__ = [
    "BlobPart",
    "BytesBody",
    "blob_exists",
    "check_digest",
    "exists",
    "get_blob",
    "get_manifest",
    "inline_bytes",
    "list_tags",
    "manifest_exists",
    "pull_scope",
    "push_scope",
    "put_manifest",
    "resolve",
]
