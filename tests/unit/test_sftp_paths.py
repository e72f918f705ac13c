"""Paths: canonical form, home directories, and that nothing leads out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrepot.services.transfer import HomeDirectoryMapping, User
from entrepot.sftp.paths import HomeDirectory, VirtualPath, has_control_characters
from entrepot.sftp.status import StatusError

ROLE = "arn:aws:iam::000000000000:role/r"
ROOT = VirtualPath()


def path_user(home: str = "/bucket/home") -> User:
    return User("demo", ROLE, home)


def logical_user(*mappings: tuple[str, str]) -> User:
    return User(
        "demo",
        ROLE,
        home_directory_type="LOGICAL",
        home_directory_mappings=tuple(HomeDirectoryMapping(*mapping) for mapping in mappings),
    )


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", ()),
        (b"/", ()),
        (b".", ()),
        (b"..", ()),
        (b"a/../../b", ("b",)),
        (b"/a//b/./c/", ("a", "b", "c")),
        (b"...", ("...",)),
        (b"a\\..\\b", ("a\\..\\b",)),
        ("ä/日本".encode(), ("ä", "日本")),
        (b"%2e%2e/x", ("%2e%2e", "x")),
    ],
)
def test_canonical_form(raw: bytes, expected: tuple[str, ...]) -> None:
    assert VirtualPath.parse(raw, ROOT).segments == expected


def test_relative_paths_start_at_home() -> None:
    home = HomeDirectory(path_user())
    assert str(home.parse(b".")) == "/bucket/home"
    assert str(home.parse(b"../x")) == "/bucket/x"
    assert str(home.parse(b"/x")) == "/x"


@pytest.mark.parametrize(
    "raw", [b"\xff", b"a\0", b"a\r\n", b"\x7f", "\u0085".encode(), "\u2028".encode(), b"\xed\xa0\x80"]
)
def test_refused(raw: bytes) -> None:
    with pytest.raises(StatusError):
        VirtualPath.parse(raw, ROOT)


@given(st.binary(max_size=200))
def test_any_bytes_give_a_canonical_path_or_a_status(raw: bytes) -> None:
    try:
        path = VirtualPath.parse(raw, ROOT)
    except StatusError:
        return
    for segment in path.segments:
        assert segment not in ("", ".", "..")
        assert "/" not in segment
        assert not has_control_characters(segment)
    assert VirtualPath.parse(path.encode(), ROOT) == path, "canonicalising twice changes nothing"


_SEGMENTS = st.sampled_from([b"..", b".", b"", b"a", b"b", b"users", b"demo", b"reports"])


@given(st.lists(_SEGMENTS, max_size=12))
def test_no_path_leads_out_of_the_mapped_folders(segments: list[bytes]) -> None:
    home = HomeDirectory(logical_user(("/", "/bucket/users/${transfer:UserName}"), ("/reports", "/other/r")))
    place = home.place(home.parse(b"/".join(segments)))
    assert place.bucket in ("bucket", "other")
    root = "users/demo" if place.bucket == "bucket" else "r"
    assert place.key == root or place.key.startswith(root + "/")
    assert ".." not in place.key.split("/")


def test_path_home() -> None:
    home = HomeDirectory(path_user())
    root = home.place(ROOT)
    assert (root.bucket, root.entries, root.fixed) == (None, {"bucket"}, True)
    bucket = home.place(VirtualPath(("bucket",)))
    assert (bucket.bucket, bucket.key, bucket.folder, bucket.fixed) == ("bucket", "", "", True)
    inside = home.place(VirtualPath(("bucket", "home", "f")))
    assert (inside.key, inside.folder, inside.fixed) == ("home/f", "home/f/", False)
    neighbour = home.place(VirtualPath(("bucket", "home2")))
    assert not neighbour.fixed


def test_the_longest_mapping_counts_and_entries_show_as_folders() -> None:
    home = HomeDirectory(logical_user(("/in", "/b1/x"), ("/in/deep/er", "/b2"), ("/out", "/b3/o")))
    root = home.place(ROOT)
    assert (root.bucket, root.entries) == (None, {"in", "out"})
    assert home.place(VirtualPath(("in",))).entries == {"deep"}
    assert home.place(VirtualPath(("in", "deep"))).key == "x/deep"
    assert home.place(VirtualPath(("in", "deep"))).fixed
    deepest = home.place(VirtualPath(("in", "deep", "er", "f")))
    assert (deepest.bucket, deepest.key) == ("b2", "f")
    assert home.place(VirtualPath(("in", "deeper"))).key == "x/deeper"
    with pytest.raises(StatusError):
        home.place(VirtualPath(("nowhere",)))
    with pytest.raises(StatusError):
        home.place(VirtualPath(("inn",)))
