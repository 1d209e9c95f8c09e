"""Fetching through real package managers, from archives that the tests make themselves."""

import hashlib
import io
import os
import subprocess
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest

from fourmill.manifests import packages
from fourmill.manifests.errors import MissingPackageError


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all that pip sees, and an empty cache."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setenv("FOURMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FOURMILL_OFFLINE", raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    return folder


def make_wheel(shelf: Path, extra: str = "pictures/a.txt") -> Path:
    path = shelf / "some_pictures-1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        info = "some_pictures-1.2.dist-info"
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: some-pictures\nVersion: 1.2\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
        wheel.writestr(extra, "a picture")
    return path


def test_a_wheel_is_fetched_once_and_its_version_and_sha256_are_recorded(shelf: Path) -> None:
    wheel = make_wheel(shelf)
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert not packages.is_cached("pip", "some-pictures")
    file = packages.package_file("pip", "some-pictures", None, "pictures/a.txt")
    assert file.read_text() == "a picture"
    wheel.unlink()  # a second download would fail
    assert packages.record("pip", "some-pictures") == packages.PackageRecord(
        "pip", "some-pictures", "1.2", sha256
    )


def test_an_archive_with_another_sha256_than_the_known_one_is_refused(
    shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel(shelf)
    monkeypatch.setitem(packages._SHA256, "some-pictures==1.2", "0" * 64)
    with pytest.raises(MissingPackageError, match="expected 0000"):
        packages.fetch("pip", "some-pictures", "1.2")
    assert not packages.is_cached("pip", "some-pictures", "1.2")


def test_a_member_that_would_leave_the_folder_is_refused(shelf: Path, tmp_path: Path) -> None:
    make_wheel(shelf, extra="../../../../escaped.txt")
    with pytest.raises(MissingPackageError, match="would leave the folder"):
        packages.fetch("pip", "some-pictures")
    assert not list(tmp_path.rglob("escaped.txt"))


def test_offline_a_missing_package_is_refused_by_name(
    shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel(shelf)
    monkeypatch.setenv("FOURMILL_OFFLINE", "1")
    with pytest.raises(MissingPackageError, match=r"some-pictures==1\.2 .*FOURMILL_OFFLINE=1"):
        packages.fetch("pip", "some-pictures", "1.2")


def test_what_the_package_manager_does_not_have_names_the_command_that_failed(shelf: Path) -> None:
    with pytest.raises(MissingPackageError, match=r"pip download .* no-such-thing==3"):
        packages.fetch("pip", "no-such-thing", "3")


def test_a_file_that_the_package_lacks_is_named(shelf: Path) -> None:
    make_wheel(shelf)
    with pytest.raises(MissingPackageError, match=r"some-pictures \(pip\) has no file b\.txt"):
        packages.package_file("pip", "some-pictures", None, "b.txt")


def test_two_at_once_download_once(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_wheel(shelf)
    downloads = []
    download = packages._download

    def counted(*arguments: object) -> Path:
        downloads.append(arguments)
        return download(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(packages, "_download", counted)
    threads = [
        threading.Thread(target=packages.fetch, args=("pip", "some-pictures")) for _ in range(3)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(downloads) == 1


def test_a_debian_package_is_unpacked_without_root(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        "Package: stamps\nVersion: 1:2.0-1\nArchitecture: all\n"
        "Maintainer: A <a@b.c>\nDescription: x\n"
    )
    (tree / "usr/share/stamps").mkdir(parents=True)
    (tree / "usr/share/stamps/cow.txt").write_text("A cow.")
    try:
        deb = shelf / "stamps_1%3a2.0-1_all.deb"
        subprocess.run(["dpkg-deb", "-b", str(tree), str(deb)], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no dpkg-deb on this machine")
    program = shelf / "apt-get"
    program.write_text(f"#!/bin/sh\ncp '{deb}' .\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{shelf}:{os.environ['PATH']}")
    assert (packages.fetch("apt", "stamps") / "usr/share/stamps/cow.txt").read_text() == "A cow."
    assert packages.record("apt", "stamps").version == "1:2.0-1"


def test_without_the_package_manager_the_message_says_which_one_is_missing(
    shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(shelf))
    with pytest.raises(MissingPackageError, match="comes through apt-get"):
        packages.fetch("apt", "stamps")


def test_an_npm_archive_may_not_write_outside(tmp_path: Path) -> None:
    archive = tmp_path / "evil-1.0.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        member = tarfile.TarInfo("../escaped.txt")
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
    (tmp_path / "inside").mkdir()
    with pytest.raises(tarfile.OutsideDestinationError):
        packages._unpack("npm", archive, tmp_path / "inside")
