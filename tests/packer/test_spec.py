"""What `-o` takes: the syntax of `docker buildx build`, and errors that say what to do."""

from typing import Any

import pytest

from imagekit.errors import UsageError
from imagekit.packer.spec import Output, parse_output


def out(kind: Any, **fields: Any) -> Output:
    return Output(type=kind, **fields)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("-", out("tar", dest="-")),
        ("dist", out("local", dest="dist")),
        ("dist/app", out("local", dest="dist/app")),
        ("./a=b", out("local", dest="./a=b")),
        ("oci:dist/app", out("oci", dest="dist/app", tar=False)),
        ("type=local,dest=dist", out("local", dest="dist")),
        ("type=local,dest=a=b", out("local", dest="a=b")),
        ('type=local,"dest=a,b"', out("local", dest="a,b")),
        ("type=local,dest=d,platform-split=false", out("local", dest="d", platform_split=False)),
        ("type=local,dest=d,platform-split=true", out("local", dest="d", platform_split=True)),
        ("type=tar", out("tar", dest="-")),
        ("type=tar,dest=x.tar", out("tar", dest="x.tar")),
        ("type=oci", out("oci", dest="-")),
        ("type=oci,dest=x.tar", out("oci", dest="x.tar")),
        ("type=oci,dest=x,tar=false", out("oci", dest="x", tar=False)),
        ("TYPE=oci,Dest=x.tar", out("oci", dest="x.tar")),
        ("type=docker", out("docker", dest="-", oci_media_types=False)),
        ("type=docker,dest=x.tar", out("docker", dest="x.tar", oci_media_types=False)),
        ("type=docker,oci-mediatypes=true", out("docker", dest="-")),
        ("type=image", out("image")),
        ("type=image,name=a", out("image", names=("a",))),
        ('type=image,"name=a,b:1"', out("image", names=("a", "b:1"))),
        ("type=image,name=a,push=true", out("image", names=("a",), push=True)),
        ("type=image,name=a,push=1", out("image", names=("a",), push=True)),
        ("type=image,name=a,push=FALSE", out("image", names=("a",))),
        ("type=image,push=true,push-by-digest=true", out("image", push=True, by_digest=True)),
        ("type=image,push=true,registry.insecure=true", out("image", push=True, insecure=True)),
        ("type=image,oci-mediatypes=false", out("image", oci_media_types=False)),
        ("type=registry", out("image", push=True)),
        ("type=registry,name=h/a", out("image", push=True, names=("h/a",))),
        ("type=cacheonly", out("cacheonly")),
        ("type=oci,compression=zstd", out("oci", dest="-", compression="zstd")),
        ("type=oci,compression=gzip", out("oci", dest="-", compression="gzip")),
        ("type=oci,compression=uncompressed", out("oci", dest="-", compression="none")),
        (
            "type=oci,compression=zstd,compression-level=22,force-compression=true",
            out("oci", dest="-", compression="zstd", level=22, force_compression=True),
        ),
        ("type=oci,compression-level=9", out("oci", dest="-", level=9)),
        (
            "type=image,annotation.a=1,annotation-index.b=2",
            out("image", annotations={"a": "1", "index:b": "2"}),
        ),
    ],
)
def test_an_output_is_read(text: str, wanted: Output) -> None:
    assert parse_output(text) == wanted


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("", "an output is empty", "type=oci"),
        ("oci:", "dest is missing", "oci:FOLDER"),
        ("type=", "unknown type ''", "cacheonly, docker, image, local, oci, registry, tar"),
        ("type=ocl", "unknown type 'ocl'", "oci"),
        ("dest=x,tar=false", "unknown type ''", "oci"),
        ("type=local", "dest is missing", "dest=FOLDER"),
        ("type=local,dest=", "dest is missing", "dest=FOLDER"),
        ("type=local,dest=-", "a folder", "type=tar"),
        ("type=oci,tar=false", "a folder needs dest", "dest=FOLDER"),
        ("type=oci,tar=false,dest=-", "a folder needs dest", "dest=FOLDER"),
        ("type=docker,tar=false,dest=x", "is an archive", "type=oci"),
        ("type=oci,dest", "'dest' has no value", "key=value"),
        ("type=oci,dest=a,dest=b", "dest is given twice", ""),
        ("type=oci,desk=a", "oci has no attribute 'desk'", "dest"),
        ("type=image,dest=a", "image has no attribute 'dest'", "name"),
        ("type=oci,tar=maybe", "tar must be true or false, not 'maybe'", ""),
        ("type=image,push=yes", "push must be true or false, not 'yes'", ""),
        ("type=oci,compression=xz", "unknown compression 'xz'", "gzip, zstd or uncompressed"),
        ("type=oci,compression=gzip,compression-level=10", "level '10' in gzip", "0 to 9"),
        ("type=oci,compression=zstd,compression-level=0", "level '0' in zstd", "1 to 22"),
        ("type=oci,compression-level=fast", "level 'fast' in gzip", "0 to 9"),
        ("type=oci,compression-level=\u0663", "level '\u0663' in gzip", "0 to 9"),
        ('type=oci,"dest=x', "unexpected end of data", ""),
        ("type=oci\ndest=x", "output", ""),
        ("type=oci,annotation-image.a=1", "no level 'image'", "index:KEY"),
        ("type=oci,annotation-index=1", "no key", "index:KEY"),
    ],
)
def test_an_error_names_the_output_what_is_wrong_and_what_to_do(
    text: str, message: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        parse_output(text)
    assert message in caught.value.message
    assert repr(text) in caught.value.message or not text
    assert hint in caught.value.hint
