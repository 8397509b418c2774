"""Plans of files alone, run in memory: what COPY, ADD and WORKDIR make, without an engine.

A build case of the conformance data (its context, its Dockerfile) goes in; layers in the form of
its `expected` come out. `Unsupported` says that a case needs more than that.
"""

import base64
import bz2
import gzip
import io
import itertools
import lzma
import os
import tarfile
import zlib
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any

from imagekit.dockerfile.ignore import Matcher, go_match, parse_ignore
from imagekit.dockerfile.parser import parse
from imagekit.errors import BadArchiveError
from imagekit.layer.changes import Changes
from imagekit.layer.content_digest import content_digest
from imagekit.layer.copying import CopyOptions, Readers, copy, inline_file, mkdir
from imagekit.layer.extract import Archive, Member
from imagekit.layer.selection import Filter, Patterns, Source
from imagekit.layer.tar import archive_entry
from imagekit.layer.tar_reader import iter_members
from imagekit.layer.tree import DIRECTORY, FILE, IMPLIED, SYMLINK, Directory, Entry, Tree, Where
from imagekit.oci.platform import Platform
from imagekit.plan import NamedContext, Plan, lower, missing_bases, ops, stage_graph

FILE_TIME = 1_000_000_000
MEMBER_TIME = 1_100_000_000
NOW = 1_800_000_000
PATTERNS = Patterns(matcher=Matcher, matches=go_match)

Contents = dict[Where, bytes]
Case = Mapping[str, Any]


class Unsupported(Exception):  # noqa: N818 - no error, a reason to skip
    """The case needs a process, a network or an image."""


class MemoryBuild:
    """One case, built."""

    def __init__(self, case: Case) -> None:
        if set(case) & {"http", "git"}:
            raise Unsupported("needs a server")
        self.contents: Contents = {}
        self._archives = itertools.count()
        self._contexts = {
            "": context_tree(case["context"], "context", self.contents, rules=_ignore(case)),
            **{
                name: context_tree(spec, name, self.contents, rules=_own_ignore(spec))
                for name, spec in case.get("named", {}).items()
            },
        }
        self.plan = plan_of(case)
        self.trees: list[Tree | None] = []
        self.layers: list[tuple[Changes, ...]] = []
        self.digests: list[tuple[str, ...]] = []
        for step in self.plan.steps:
            self._run(step)

    @property
    def result(self) -> tuple[Changes, ...]:
        """The layers of the image."""
        return self.layers[self.plan.result]

    def _run(self, step: ops.Step) -> None:
        inputs = [self.trees[n] for n in step.inputs]
        digests: list[str] = []
        match step.op:
            case ops.Base(reference=""):
                self._add(None, ())
                return
            case ops.Local(name):
                tree = self._contexts[name]
                self._add(tree, (Changes(entries=dict(tree.walk())),))
                return
            case ops.Copy() as op:
                changes = self._copy(op, inputs, digests)
            case ops.Mkdir() as op:
                now = NOW if op.epoch is None else op.epoch
                changes = mkdir(inputs[0], op.path, op.owner, now=now, read_file=self._read)
            case _:
                raise Unsupported(f"needs {type(step.op).__name__}")
        self._add(
            (inputs[0] or Tree.EMPTY).apply(changes),
            (*self.layers[step.inputs[0]], changes),
            tuple(digests),
        )

    def _add(
        self, tree: Tree | None, layers: tuple[Changes, ...], digests: tuple[str, ...] = ()
    ) -> None:
        self.trees.append(tree)
        self.layers.append(layers)
        self.digests.append(digests)

    def _copy(self, op: ops.Copy, inputs: list[Tree | None], digests: list[str]) -> Changes:
        now = NOW if op.epoch is None else op.epoch
        options = CopyOptions(
            dest=op.dest, chown=op.chown, chmod=op.chmod, exclude=op.exclude, link=op.link
        )
        sources = []
        for item in op.sources:
            if isinstance(item, ops.InlineFile):
                where = Where(f"inline {next(self._archives)}", item.name)
                self.contents[where] = item.content
                tree = inline_file(item.name, item.content, mode=item.mode, now=now, where=where)
                sources.append(Source(tree=tree, path=f"/{item.name}"))
                continue
            sources.append(
                Source(
                    tree=inputs[item.input] or Tree.EMPTY,
                    path=item.path,
                    wildcard=item.wildcard,
                    pattern=item.pattern,
                    required=item.required,
                    unpack=item.unpack,
                )
            )
        digests += [
            str(content_digest(source, patterns=PATTERNS, exclude=op.exclude))
            for source in sources
        ]
        readers = Readers(read_file=self._read, unpack=self._unpack, patterns=PATTERNS)
        return copy(options, sources, inputs[0], now=NOW, readers=readers)

    def _read(self, entry: Entry) -> bytes:
        assert entry.where is not None
        return self.contents[entry.where]

    def _unpack(self, entry: Entry) -> Archive | None:
        data = decompressed(self._read(entry))
        source = f"archive {next(self._archives)}"
        try:
            members = tuple(iter_members(io.BytesIO(data)))
        except BadArchiveError:
            return None
        found = []
        for member in members:
            name = os.fsdecode(member.name)
            if member.kind == b"1":
                entry = Entry(FILE, member.mode, member.uid, member.gid, member.mtime)
                found.append(Member(name, entry, os.fsdecode(member.link)))
                continue
            entry = archive_entry(member, source)
            if entry.where is not None:
                self.contents[entry.where] = data[member.at : member.at + member.size]
            found.append(Member(name, entry))
        return tuple(found) or None


def plan_of(case: Case) -> Plan:
    """The plan of a case on linux/amd64."""
    graph = stage_graph(
        parse(case["dockerfile"]),
        build_args=case.get("build_args", {}),
        build=Platform.parse("linux/amd64"),
        stage=case.get("target"),
        contexts={
            name: NamedContext(name=name, kind="folder", location=name)
            for name in case.get("named", {})
        },
    )
    if missing_bases(graph, {}):
        raise Unsupported("needs an image")
    return lower(graph, {})


def context_tree(
    spec: Mapping[str, Any], source: str, contents: Contents, *, rules: tuple[str, ...] = ()
) -> Tree:
    """The tree of a build context; content of its files goes into `contents`."""
    entries: dict[str, Entry] = {}
    hard: dict[str, str] = {}
    for number, (path, given) in enumerate(spec.items(), start=1):
        item = given if isinstance(given, dict) else {"c": given}
        if path.endswith("/"):
            mode = item.get("m", 0o755)
            entries[path.rstrip("/")] = Entry(DIRECTORY, mode, mtime=FILE_TIME)
        elif "link" in item:
            entries[path] = Entry(SYMLINK, 0o777, mtime=FILE_TIME, link=item["link"])
        elif "hard" in item:
            hard[path] = item["hard"]
        else:
            data = _bytes(item)
            where = Where(source, path)
            contents[where] = data
            entries[path] = Entry(
                FILE,
                0o755 if item.get("busybox") else item.get("m", 0o644),
                mtime=item.get("mt", FILE_TIME),
                size=len(data),
                digest=sha256(data).digest(),
                where=where,
                inode=number if path in _linked(spec) else 0,
            )
    entries |= {path: entries[target] for path, target in hard.items()}
    for path in list(entries):
        for parent in _parents(path):
            entries.setdefault(parent, Entry(DIRECTORY, 0o755, mtime=FILE_TIME))
    tree = Tree.EMPTY.apply(Changes(entries=entries))
    if not rules:
        return tree
    kept = Filter(exclude=Matcher(rules)).select(tree.root)
    return Tree(Directory(IMPLIED)).apply(Changes(entries={s.path: s.entry for s in kept}))


def tar_bytes(members: Mapping[str, Any], compression: str = "") -> bytes:
    """A tar as a case describes it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, given in members.items():
            item = given if isinstance(given, dict) else {"c": given}
            member = tarfile.TarInfo(path.rstrip("/"))
            member.mtime = MEMBER_TIME
            member.uid, member.gid = item.get("u", 0), item.get("g", 0)
            data = b""
            if path.endswith("/"):
                member.type, member.mode = tarfile.DIRTYPE, item.get("m", 0o755)
            elif "link" in item:
                member.type, member.linkname, member.mode = tarfile.SYMTYPE, item["link"], 0o777
            elif "hard" in item:
                member.type, member.linkname = tarfile.LNKTYPE, item["hard"]
                member.mode = item.get("m", 0o644)
            else:
                data = item["c"].encode()
                member.size, member.mode = len(data), item.get("m", 0o644)
            tar.addfile(member, io.BytesIO(data))
    compress = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}
    return compress[compression](out.getvalue()) if compression else out.getvalue()


def decompressed(data: bytes) -> bytes:
    """The bytes in a gzip, bzip2 or xz file, or the bytes themselves."""
    for decompress in (gzip.decompress, bz2.decompress, _xz):
        try:
            return decompress(data)
        except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError):
            continue
    return data


def _xz(data: bytes) -> bytes:
    return lzma.decompress(data, format=lzma.FORMAT_XZ)


def layer_view(changes: Changes, contents: Contents) -> dict[str, Any]:
    """A layer in the form of the conformance data; directories carry no time."""
    links: dict[tuple[str, int], set[str]] = {}
    for path, entry in changes.entries.items():
        if entry.inode and entry.where:
            links.setdefault((entry.where.source, entry.inode), set()).add(path)
    view = {
        f"{path}/" if entry.kind == DIRECTORY else path: _entry_view(path, entry, contents, links)
        for path, entry in changes.entries.items()
    }
    for path in changes.whiteouts:
        head, slash, name = path.rpartition("/")
        view[f"{head}{slash}.wh.{name}"] = {"type": "whiteout"}
    return dict(sorted(view.items()))


def _entry_view(
    path: str, entry: Entry, contents: Contents, links: Mapping[tuple[str, int], set[str]]
) -> dict[str, Any]:
    view: dict[str, Any] = {"mode": f"{entry.mode:04o}"}
    if entry.uid or entry.gid:
        view |= {"uid": entry.uid, "gid": entry.gid}
    if entry.kind == DIRECTORY:
        return view | {"type": "dir"}
    mtime = "now" if entry.mtime == NOW else entry.mtime
    if entry.kind == SYMLINK:
        del view["mode"]
        return view | {"type": "symlink", "link": entry.link, "mtime": mtime}
    assert entry.where is not None
    data = contents[entry.where]
    group = links.get((entry.where.source, entry.inode), set()) if entry.inode else set()
    if len(group) > 1:
        view["hardlinks"] = sorted(group - {path})
    return view | {"type": "file", "mtime": mtime} | _content_view(data)


def _content_view(data: bytes) -> dict[str, Any]:
    if len(data) > 500_000:
        return {"content": "any"}
    if len(data) <= 120 and b"\0" not in data:
        try:
            return {"content": data.decode()}
        except UnicodeDecodeError:
            return {"sha256": sha256(data).hexdigest()}
    return {"size": len(data), "sha256": sha256(data).hexdigest()}


def _bytes(item: Mapping[str, Any]) -> bytes:
    if "tar" in item:
        return tar_bytes(item["tar"], item.get("z", ""))
    if "b64" in item:
        return base64.b64decode(item["b64"])
    if item.get("busybox"):
        return b"\x7fELF" + bytes(600_000)
    return item["c"].encode() if item["c"] is not None else b""


def _linked(spec: Mapping[str, Any]) -> set[str]:
    return {item["hard"] for item in spec.values() if isinstance(item, dict) and "hard" in item}


def _parents(path: str) -> Iterable[str]:
    return (path[:at] for at, char in enumerate(path) if char == "/")


def _ignore(case: Case) -> tuple[str, ...]:
    beside = f"{case.get('dockerfile_name', 'Dockerfile')}.dockerignore"
    for files in (case.get("extra_files", {}), case["context"]):
        if beside in files:
            return parse_ignore(files[beside])
    return _own_ignore(case["context"])


def _own_ignore(spec: Mapping[str, Any]) -> tuple[str, ...]:
    given = spec.get(".dockerignore", "")
    return parse_ignore(given["c"] if isinstance(given, dict) else given)
