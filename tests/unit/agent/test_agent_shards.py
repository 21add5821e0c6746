import io
import tarfile

import pytest

from edgejoule_agent.errors import ShardError
from edgejoule_agent.shards import ShardReader


def test_read_returns_each_image_in_any_order(tmp_path, tar):
    path = tar(tmp_path / "a.tar", [("000000000139.jpg", b"one"), ("000000000007.png", b"three"), ("12.jpg", b"")])
    with ShardReader(path) as reader:
        assert reader.ids == [139, 7, 12]
        assert len(reader) == 3
        assert reader.read(7) == b"three"
        assert reader.read(139) == b"one"
        assert list(reader) == [(139, b"one"), (7, b"three"), (12, b"")]


def test_read_names_the_image_when_it_is_not_there(tmp_path, tar):
    path = tar(tmp_path / "a.tar", [("1.jpg", b"x")])
    with ShardReader(path) as reader, pytest.raises(ShardError, match="no image 2 among its 1"):
        reader.read(2)


@pytest.mark.parametrize("name", ["../1.jpg", "a/1.jpg", "/1.jpg", "one.jpg", "-1.jpg", "1 .jpg", "².jpg", "9" * 30])
def test_opening_refuses_members_not_named_by_an_id(tmp_path, tar, name):
    path = tar(tmp_path / "a.tar", [(name, b"x")])
    with pytest.raises(ShardError, match="not an image file named by its id"):
        ShardReader(path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_opening_refuses_members_that_are_no_regular_files(tmp_path, kind):
    path = tmp_path / "a.tar"
    with tarfile.open(str(path), "w") as archive:
        info = tarfile.TarInfo("1.jpg")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(ShardError, match="not an image file"):
        ShardReader(path)


def test_opening_refuses_an_id_twice(tmp_path, tar):
    with pytest.raises(ShardError, match="image 1 is there twice"):
        ShardReader(tar(tmp_path / "a.tar", [("1.jpg", b"x"), ("01.png", b"y")]))


def test_opening_refuses_a_truncated_archive(tmp_path, tar):
    whole = tar(tmp_path / "a.tar", [("1.jpg", b"x" * 2000)]).read_bytes()
    (tmp_path / "b.tar").write_bytes(whole[:1500])
    with pytest.raises(ShardError):
        ShardReader(tmp_path / "b.tar")


def test_opening_refuses_what_is_no_uncompressed_tar(tmp_path):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("1.jpg"))
    for content in (b"", b"no tar at all" * 100, packed.getvalue()):
        (tmp_path / "a.tar").write_bytes(content)
        with pytest.raises(ShardError, match="uncompressed tar"):
            ShardReader(tmp_path / "a.tar")


def test_opening_says_why_when_the_file_cannot_be_read(tmp_path):
    with pytest.raises(ShardError, match="No such file"):
        ShardReader(tmp_path / "none.tar")
