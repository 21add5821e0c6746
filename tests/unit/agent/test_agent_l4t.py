import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgejoule_agent import l4t

LINE = (
    "# R{} (release), REVISION: {}, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 01:49:37 UTC 2025"
)


@pytest.mark.parametrize(
    ("release", "revision", "version"),
    [(32, "7.1", "32.7.1"), (35, "1.0", "35.1.0"), (36, "4", "36.4.0"), (38, "2.2", "38.2.2")],
)
def test_release_is_read_from_the_first_line(release, revision, version):
    assert l4t.parse_release(LINE.format(release, revision)) == version
    assert l4t.parse_release(LINE.format(release, revision) + "\n# KERNEL_VARIANT: oot\n") == version
    assert l4t.parse_release(f"# R{release} (release), REVISION: {revision}\n") == version  # shortened by vendors


@pytest.mark.parametrize("text", ["", "Ubuntu 22.04", "# R36 (release)", "R36.4.3", "# R (release), REVISION: 4.3"])
def test_release_is_none_where_the_words_are_others(text):
    assert l4t.parse_release(text) is None


@given(st.text())
def test_release_is_a_version_or_none_whatever_stands_there(text):
    found = l4t.parse_release(text)
    assert found is None or l4t.numbers(found)


@given(st.integers(0, 9999), st.integers(0, 9999), st.integers(0, 9999), st.text(alphabet="\r\n #,:"))
def test_release_is_what_was_written(major, minor, patch, rest):
    assert l4t.parse_release(LINE.format(major, f"{minor}.{patch}") + "\n" + rest) == f"{major}.{minor}.{patch}"


@pytest.mark.parametrize("text", ["", "r", "36.4.3.1", "36.x", "36..3", "-36.4", "٣٦.4"])
def test_numbers_refuse_what_is_no_version(text):
    with pytest.raises(ValueError, match="no L4T version"):
        l4t.numbers(text)


@pytest.mark.parametrize(
    ("version", "ships"),
    [
        ("32.7.1", ("4.6.1", "18.04", "3.6", "10.2", "8.2.1")),
        ("r32.7.6", ("4.6.6", "18.04", "3.6", "10.2", "8.2.1")),
        ("35.1", ("5.0.2", "20.04", "3.8", "11.4", "8.4.1")),
        ("35.4.1", ("5.1.2", "20.04", "3.8", "11.4", "8.5.2")),
        ("36.3.0", ("6.0", "22.04", "3.10", "12.2", "8.6.2")),
        ("36.4.3", ("6.2", "22.04", "3.10", "12.6", "10.3.0")),
        ("38.2.2", ("7.0", "24.04", "3.12", "13.0", "10.13.3")),
        ("39.2.0", ("7.2", "24.04", "3.12", "13.2", "10.16")),
    ],
)
def test_release_ships(version, ships):
    assert l4t.release_of(version)[1:] == ships


def test_unknown_release_is_none_and_not_its_neighbour():
    assert l4t.release_of("36.4.99") is None
    assert l4t.release_of("34.1.1") is None


def test_releases_stand_in_order_and_once():
    found = [l4t.numbers(release.l4t) for release in l4t.RELEASES]
    assert found == sorted(set(found))


# the rule as jetson.md has it: 32.7+ <-> 32.7+; 35 <-> 35; 36.<4 <-> 36.<4; 36.>=4 <-> 36.>=4; 38 and 39 any
ISLANDS = [
    ["32.7.1", "32.7.3", "32.7.6"],
    ["35.1.0", "35.2.1", "35.4.1", "35.6.4"],
    ["36.2.0", "36.3.0"],
    ["36.4.0", "36.4.3", "36.4.7", "36.5.0"],
    ["38.2.0", "38.4.0", "39.2.0"],
]
OF = {version: number for number, island in enumerate(ISLANDS) for version in island}


@pytest.mark.parametrize("image", sorted(OF))
def test_images_run_on_hosts_of_their_island_only(image):
    found = {host for host in OF if l4t.compatible("r" + image, host)}
    assert found == {host for host in OF if OF[host] == OF[image]}


def test_releases_before_32_7_run_their_own_images_only():
    assert l4t.compatible("32.6.1", "32.6.1")
    assert not l4t.compatible("32.6.1", "32.7.1")
    assert not l4t.compatible("32.7.1", "32.6.1")
    assert not l4t.compatible("32.5.0", "32.6.1")
