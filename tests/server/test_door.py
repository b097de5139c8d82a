"""Promises at the door: what people really send is taken, or refused with the command that mends it.

Every file is made by the real tool. A real server and `inspect` judge it, and say the same, word for word. What is
taken is unpacked whole, as it is for a machine. A command that a refusal names is run, and what it makes is taken.
"""

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from construir_ftp.config import Config
from construir_ftp.diskimage import codec
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.jobs.job import Job
from construir_ftp.pack import inspect
from tests.support import images
from tests.support.ftpclient import House, serving
from tests.support.images import MIB

# whole.img is the image of a job; a line of the shell makes of it what is sent.
TAKEN = {
    "gzip": "gzip -c whole.img >up.img.gz",
    "pigz": "pigz -c whole.img >up.img.gz",
    "pigz, independent": "pigz -i -b 128 -c whole.img >up.img.gz",
    "bgzip": "bgzip -c whole.img >up.img.gz",
    "cat of gzip": "head -c 9999 whole.img | gzip >up.img.gz; tail -c +10000 whole.img | gzip >>up.img.gz",
    "gzip and zeros": "gzip -c whole.img >up.img.gz; head -c 1000 /dev/zero >>up.img.gz",
    "gzip by blocks of a tape": "gzip -c whole.img | dd of=up.img.gz bs=10240 iflag=fullblock conv=sync status=none",
    "pbzip2": "pbzip2 -b1 -k -c whole.img >up.img.bz2",
    "bzip2 and zeros": "bzip2 -c whole.img >up.img.bz2; head -c 7 /dev/zero >>up.img.bz2",
    "pixz": "pixz <whole.img >up.img.xz",
    "xz by threads": "xz -0 -T2 --block-size=512KiB -c whole.img >up.img.xz",
    "cat of xz": "head -c 9999 whole.img | xz -0 >up.img.xz; tail -c +10000 whole.img | xz -0 >>up.img.xz",
    "xz with padding between": "head -c 9999 whole.img | xz -0 >up.img.xz; head -c 8 /dev/zero >>up.img.xz;"
    " tail -c +10000 whole.img | xz -0 >>up.img.xz; head -c 4 /dev/zero >>up.img.xz",
    "xz and three zeros": "xz -0 -c whole.img >up.img.xz; head -c 3 /dev/zero >>up.img.xz",
    "xz without check": "xz -0 -C none -c whole.img >up.img.xz",
    "pzstd": "pzstd -q -p 2 -1 -c whole.img >up.img.zst",
    "zstd --long": "zstd -q --long=27 -c whole.img >up.img.zst",
    "cat of zstd": "head -c 9999 whole.img | zstd -q >up.img.zst; tail -c +10000 whole.img | zstd -q >>up.img.zst",
    "zstd and zeros": "zstd -q -c whole.img >up.img.zst; head -c 70000 /dev/zero >>up.img.zst",
    "lz4": "lz4 -q -BD -c whole.img >up.img.lz4",
    "cat of lz4": "head -c 9999 whole.img | lz4 -q >up.img.lz4; tail -c +10000 whole.img | lz4 -q >>up.img.lz4",
    "lz4 and zeros": "lz4 -q -c whole.img >up.img.lz4; head -c 512 /dev/zero >>up.img.lz4",
    "raw and zeros": "cp whole.img up.img; truncate -s +3M up.img",
    "raw and a newline": "cp whole.img up.img; echo >>up.img",
    "zeros in zstd": "cp whole.img longer; truncate -s 9M longer; zstd -q -c longer >up.img.zst",
    "a fixed VHD": "qemu-img convert -O vpc -o subformat=fixed,force_size=on whole.img up.img",
    "a wrong count of free blocks": "cp whole.img up.img; debugfs -w -R 'ssv free_blocks_count 4000000000' up.img",
    "a link within": "in_tree 'mv run.sh real; ln -s real run.sh'",
    "an absolute link within": "in_tree 'mkdir d; mv run.sh d/; ln -s /job/d/../d/run.sh run.sh'",
    "a link of links": "in_tree 'mv run.sh a; ln -s a b; ln -s ./b c; ln -s /job/c run.sh'",
    "no interpreter": "in_tree 'echo echo hello >run.sh'",
    "an interpreter in the image": r"in_tree 'cp run.sh own; printf \#!/job/own\\n >run.sh'",
    "an interpreter beside": r"in_tree 'cp run.sh own; printf \#!own\\n >run.sh'",
    "a program of bin by env": r"in_tree 'mkdir bin; cp run.sh bin/own; printf \#!/usr/bin/env\ own\\n >run.sh'",
    "another program": """in_tree 'mkdir d; mv run.sh d/x; echo run = \\"d/x\\" >construir.toml'""",
    "ELF": "in_tree 'cp /bin/true run.sh'",
}


class Bad(NamedTuple):
    """How it is made, what is said, and what the command that is said makes."""

    recipe: str
    words: str
    mended: str = ""


_CONVERT = r"qemu-img convert -O raw up\.img job\.img"
_CUT = r"cut it off with: truncate -s \d+ "
_PACK = "construir pack "
REFUSED = {
    **{
        f"a newline after {tool}": Bad(
            f"{tool} -c whole.img >up.img; echo >>up.img",
            f"what follows the end of the {tool} stream is no part of it; {_CUT}up.img",
            "up.img",
        )
        for tool in ("gzip", "bzip2", "xz", "zstd", "lz4")
    },
    "zeros, then more": Bad(
        "gzip -c whole.img >up.img.gz; head -c 100 /dev/zero >>up.img.gz; echo x >>up.img.gz",
        f"what follows the end of the gzip stream is no part of it; {_CUT}up.img.gz",
        "up.img.gz",
    ),
    "two codecs": Bad(
        "head -c 9999 whole.img | gzip >up.img; tail -c +10000 whole.img | zstd -q >>up.img",
        "a zstd stream follows the end of the gzip stream; unpack both, and compress the whole once, .*zstd -3 IMAGE",
    ),
    "compressed twice": Bad(
        "gzip -c whole.img | zstd -q >up.img.zst",
        r"not a file system image \(compressed twice, first by gzip, in zstd\); make one with:"
        r" zstd -dc up.img.zst >job.img.gz",
        "job.img.gz",
    ),
    "cut pbzip2": Bad(
        "pbzip2 -b1 -k -c whole.img >x; head -c -9 x >up.img.bz2",
        "the bzip2 stream ends early: the upload is cut short; send it again",
    ),
    "cut between members": Bad(
        "head -c 999999 whole.img | gzip >up.img.gz; head -c 999 whole.img | gzip >>up.img.gz",
        r"the image ends after 1000998 of the 4194304 bytes of its file system: it is cut short; send it again",
    ),
    "zstd --long=28": Bad(
        "truncate -s 200M large; zstd -q --long=28 -c large >up.img.zst",
        "unpacking this zstd stream takes more memory .*; compress again with zstd -3, without --ultra and --long",
    ),
    "xz of a huge dictionary": Bad(
        "cp greedy up.img.xz",
        "unpacking this xz stream takes more memory than is given here; compress again with xz -6",
    ),
    "a zstd dictionary": Bad(
        "mkdir s; for n in $(seq 200); do yes sample $n | head -n 99 >s/$n; done; zstd -q --train s/* -o DICTIONARY;"
        " zstd -q -D DICTIONARY -c whole.img >up.img.zst",
        "the zstd stream needs the dictionary it was made with; compress again without:"
        r" zstd -D DICTIONARY -dc up\.img\.zst \| zstd -c >job.img.zst",
        "job.img.zst",
    ),
    **{
        kind: Bad(recipe, rf"not a file system image \({words}\); make one with: {command}", made)
        for kind, recipe, words, command, made in (
            *(
                (name, f"qemu-img convert -O {name} whole.img up.img", words, _CONVERT, "job.img")
                for name, words in {
                    "qcow2": "a qcow2 disk image",
                    "vmdk": "a VMDK disk image",
                    "vdi": "a VDI disk image",
                    "vhdx": "a VHDX disk image",
                    "vpc": "a VHD disk image",
                    "qed": "a QED disk image",
                    "parallels": "a Parallels disk image",
                }.items()
            ),
            ("simg", "img2simg whole.img up.img", "an Android sparse image", r"simg2img up\.img job\.img", "job.img"),
            (
                "lz4 -l",
                "lz4 -l -c whole.img >up.img",
                "lz4 of the old format, -l",
                r"lz4 -dc up\.img \| lz4 -c >job.img.lz4",
                "job.img.lz4",
            ),
            (
                "lzip",
                "lzip -0 -c whole.img >up.img",
                "an lzip stream",
                r"lzip -dc up\.img \| xz -c >job.img.xz",
                "job.img.xz",
            ),
            (
                "lzma",
                "xz -0 --format=lzma -c whole.img >up.img",
                "an lzma stream of the old format",
                r"xz --format=lzma -dc up\.img \| xz -c >job.img.xz",
                "job.img.xz",
            ),
            (
                "compress",
                "compress -c whole.img >up.img",
                r"a stream of compress, \.Z",
                r"gzip -dc up\.img \| gzip -c >job.img.gz",
                "job.img.gz",
            ),
            (
                "zlib",
                """perl -MCompress::Zlib -e 'undef $/; print compress(<>)' whole.img >up.img""",
                "a zlib stream",
                r"pigz -dc up\.img \| gzip -c >job.img.gz",
                "job.img.gz",
            ),
            (
                "a logical partition",
                "truncate -s 20M up.img; printf '2048,30000,E\\n4096,8192\\n' | sfdisk -q up.img; dd if=whole.img"
                " of=up.img seek=2 bs=1M conv=notrunc status=none",
                "a whole disk with its partitions in an extended one",
                r"dd if=up\.img of=job\.img bs=512 skip=START count=SECTORS, of what sfdisk -l up\.img lists",
                "",
            ),
            (
                "lzop",
                "lzop -c whole.img >up.img",
                "an lzop stream",
                r"lzop -dc up\.img \| lz4 -c >job.img.lz4",
                "job.img.lz4",
            ),
            (
                "one partition",
                "truncate -s 8M up.img; echo 2048,8192 | sfdisk -q up.img; dd if=whole.img of=up.img seek=1 bs=1M"
                " conv=notrunc status=none",
                "a whole disk with one partition",
                "dd if=up.img of=job.img bs=1048576 skip=1 count=4",
                "job.img",
            ),
            (
                "GPT",
                "truncate -s 9M up.img; printf 'label: gpt\\n2048,2048\\n4096,8192\\n' | sfdisk -q up.img;"
                " dd if=whole.img of=up.img seek=2 bs=1M conv=notrunc status=none",
                "a whole disk with 2 partitions, of which the largest is taken here",
                "dd if=up.img of=job.img bs=1048576 skip=2 count=4",
                "job.img",
            ),
            (
                "a partition at an odd place",
                "truncate -s 8M up.img; echo 63,8192 | sfdisk -q up.img; dd if=whole.img of=up.img seek=63 bs=512"
                " conv=notrunc status=none",
                "a whole disk with one partition",
                "dd if=up.img of=job.img bs=512 skip=63 count=8192",
                "job.img",
            ),
        )
    },
    "qcow2 in gzip": Bad(
        "qemu-img convert -O qcow2 whole.img IMAGE; gzip -c IMAGE >up.img",
        r"not a file system image \(a qcow2 disk image, in gzip\); unpack it, and make one with:"
        r" qemu-img convert -O raw IMAGE job\.img",
        "job.img",
    ),
    "a directory's archive": Bad(
        "tar cf up.img tree", r"not a file system image \(POSIX tar archive.*\); .*: .* pack DIR"
    ),
    "raw and more": Bad(
        "cp whole.img up.img; head -c 1M whole.img >>up.img",
        "the image goes on after the 4194304 bytes of its file system; cut it there with: truncate -s 4194304 up.img",
        "up.img",
    ),
    "an image in use": Bad(
        "mke2fs -q -F -t ext4 -d tree up.img 8M; debugfs -w -R 'feature needs_recovery' up.img",
        r"the image was in use when it was copied, .* mend it with /sbin/e2fsck -fy up\.img, and send it again",
    ),
    "a feature": Bad(
        "mke2fs -q -F -t ext4 -d tree up.img 8M; debugfs -w -R 'ssv feature_ro_compat 0x4000' up.img",
        "the machine can't write to an ext with the feature shared_blocks; make the image without it",
    ),
    "no run.sh": Bad("in_tree 'rm run.sh'", f"there is no run.sh at the root of the image; write one, .*: {_PACK}DIR"),
    "run.sh one level down": Bad(
        "in_tree 'mkdir hello; mv run.sh hello'",
        "there is no run.sh at the root of the image, but one in hello/; make the image of that directory:"
        " construir pack hello",
    ),
    "RUN.SH": Bad("in_tree 'mv run.sh RUN.SH'", "there is no run.sh .*, but RUN.SH; rename it to run.sh, and make"),
    "run.sh.txt": Bad(
        "in_tree 'mv run.sh run.sh.txt'", "there is no run.sh .*, but run.sh.txt; rename it to run.sh, and"
    ),
    "not executable": Bad("in_tree 'chmod -x run.sh'", "run.sh is not executable; run: chmod .x run.sh, and make the"),
    "a directory": Bad("in_tree 'rm run.sh; mkdir run.sh'", "run.sh is a directory; the program to run has to be a"),
    "a pipe": Bad("in_tree 'rm run.sh; mkfifo run.sh'", "run.sh is no file; the program to run has to be one"),
    "a link to nowhere": Bad(
        "in_tree 'ln -sf gone run.sh'", "run.sh is a link that leads nowhere; put the file in its"
    ),
    "links in a circle": Bad(
        "in_tree 'ln -sf a run.sh; ln -s run.sh a'", "run.sh is a link that leads nowhere; put the"
    ),
    "a link above the image": Bad("in_tree 'ln -sf /job/gone run.sh'", "run.sh is a link that leads nowhere; put the"),
    "lines of Windows": Bad(
        r"in_tree 'printf \#!/bin/sh\\r\\necho\\r\\n >run.sh'",
        r"the first line of run.sh ends in a carriage return, as lines do on Windows; run: sed -i 's/\\r\$//' run.sh,",
    ),
    "lines of Windows, no interpreter": Bad(
        r"in_tree 'printf echo\\r\\n >run.sh'", "the first line of run.sh ends in a carriage return, as lines do on"
    ),
    "lines of old Macs": Bad(
        r"in_tree 'printf \#!/bin/sh\\recho\\r >run.sh'",
        r"the lines of run.sh end in carriage returns alone, as on old Macs; run: sed -i 's/\\r/\\n/g' run.sh,",
    ),
    "lines of old Macs, no interpreter": Bad(
        r"in_tree 'printf echo\\recho\\r >run.sh'", "the lines of run.sh end in carriage returns alone, as on old"
    ),
    "Construir.toml": Bad(
        "in_tree 'echo cpus = 1 >Construir.toml'",
        r"construir\.toml is called Construir\.toml here, and would not be read; rename it to construir\.toml",
    ),
    "construir.toml.txt": Bad(
        "in_tree 'echo cpus = 1 >construir.toml.txt'", r"construir\.toml is called construir\.toml\.txt here, and would"
    ),
    "a link to construir.toml": Bad(
        "in_tree 'echo cpus = 1 >a; ln -s a construir.toml'", "construir.toml is a link; put the file in its place"
    ),
    "a byte order mark": Bad(
        r"in_tree 'printf \\357\\273\\277\#!/bin/sh\\n >run.sh'",
        "run.sh begins with a byte order mark, not with #!; save",
    ),
    "UTF-16": Bad(r"in_tree 'printf \\377\\376\#\\0!\\0 >run.sh'", "run.sh is UTF-16 text; save it as UTF-8"),
    "an interpreter that the image lacks": Bad(
        r"in_tree 'printf \#!/job/own\\n >run.sh'", "run.sh is run by /job/own, which is not in the image"
    ),
    "an interpreter that is no program": Bad(
        r"in_tree 'touch own; printf \#!./own\\n >run.sh'", r"run.sh is run by \./own, which is no executable file"
    ),
    "another program that isn't there": Bad(
        """in_tree 'echo run = \\"d/x\\" >construir.toml'""",
        "there is no d/x in the image; make it anew, with what is to",
    ),
}

# What only a base image can tell.
IN_BASE = {
    "sh": r"in_tree 'printf \#!/bin/sh\\n >run.sh'",
    "bash with an argument": r"in_tree 'printf \#!\ /usr/bin/bash\ -e\\n >run.sh'",
    "perl by env": r"in_tree 'printf \#!/usr/bin/env\ perl\\n >run.sh'",
    "perl by env -S": r"in_tree 'printf \#!/usr/bin/env\ -S\ A=b\ perl\ -w\\n >run.sh'",
    "a link to the machine's": "in_tree 'ln -sf /bin/true run.sh'",
    "a package that may have it": r"in_tree 'cp ../packages.toml construir.toml; printf \#!/usr/bin/ruby\\n >run.sh'",
    "a PATH of its own": r"in_tree 'cp ../path.toml construir.toml; printf \#!/usr/bin/env\ ruby\\n >run.sh'",
}
_ASK = "which neither the image nor the base image .* has; name its Debian package among the packages in construir.toml"
NOT_IN_BASE = {
    "ruby": Bad(r"in_tree 'printf \#!/usr/bin/ruby\\n >run.sh'", f"run.sh is run by /usr/bin/ruby, {_ASK}"),
    "ruby by env": Bad(r"in_tree 'printf \#!/usr/bin/env\ ruby\\n >run.sh'", f"run.sh is run by ruby, {_ASK}"),
    "a link": Bad("in_tree 'ln -sf /usr/bin/ruby run.sh'", f"run.sh is a link to /usr/bin/ruby, {_ASK}"),
    "a link to what is beside it": Bad(
        "in_tree 'mv run.sh real; ln -s /real run.sh'",
        "run.sh is a link to /real; the image is mounted at /job, so that its file is /job/real; name it so, and make",
    ),
    "an interpreter beside it": Bad(
        r"in_tree 'mkdir tools; cp /bin/true tools/own; printf \#!/tools/own\\n >run.sh'",
        "run.sh is run by /tools/own; the image is mounted at /job, so that its file is /job/tools/own; name it so,",
    ),
    "ELF of another architecture": Bad(
        "echo 'int main(){}' >x.c; aarch64-linux-gnu-gcc x.c -o tree/run.sh; in_tree :",
        f"run.sh is run by the loader /lib/ld-linux-aarch64.so.1, {_ASK}",
    ),
}

_FUNCTIONS = """
in_tree() { (cd tree && eval "$1") && rm -f up.img && mke2fs -q -F -t ext2 -d tree up.img 4M; }
"""


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A server for all of them."""
    with serving(tmp_path_factory.mktemp("door"), max_waiting="4GiB") as house:
        yield house


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job as a directory and as an image; some of it can't be compressed, so that streams have several members."""
    made = tmp_path_factory.mktemp("made")
    tree = images.job_directory(made / "tree")
    (tree / "noise").write_bytes(images.noise(600_000))
    images.of_directory(tree, made / "whole.img", 4 * MIB)
    (made / "packages.toml").write_text('[dependencies]\npackages = ["ruby"]\n')
    (made / "path.toml").write_text('[env]\nPATH = "/job/ruby"\n')
    (made / "greedy").write_bytes(images.greedy_xz(bytes(MIB)))
    return made


def make(place: Path, tmp_path: Path, recipe: str) -> Path:
    """What is sent, in a directory of its own."""
    directory = tmp_path / "made"
    shutil.copytree(place, directory)
    images.run("sh", "-ec", f"cd {directory}; {_FUNCTIONS} {recipe} 2>&1")
    (upload,) = directory.glob("up.img*")
    return upload


def say(door: House, upload: Path) -> str:
    """What the server says, and that inspect says the same; of a job only that it is accepted."""
    with door.connect() as control, upload.open("rb") as file:
        reply = control.log_in().store(f"/queue/{upload.name}", file.read())
    said = inspect.inspect(upload, Config()).reply
    assert reply.startswith(said) if said == "226 Accepted" else reply.partition(", or go on after")[0] == said
    return reply


def job(door: House, reply: str) -> Job:
    """The one that was accepted."""
    found = re.match(r"226 Accepted as job (\S+),", reply)
    assert found, reply
    return Job(door.spool.state("queue") / found[1])


@pytest.mark.parametrize("kind", TAKEN)
def test_what_is_whole_is_taken_and_unpacked_whole(door: House, place: Path, tmp_path: Path, kind: str) -> None:
    upload = make(place, tmp_path, TAKEN[kind])
    taken = job(door, say(door, upload))
    record, disk = taken.record(), tmp_path / "disk"
    codec.unpack(record.codec, taken.upload, disk, record.image_bytes, 60, padding_bytes=record.padding_bytes)
    assert record.image_bytes == 4 * MIB
    if "in_tree" not in TAKEN[kind] and "debugfs" not in TAKEN[kind]:
        assert disk.read_bytes() == (place / "whole.img").read_bytes()


def refuse(door: House, place: Path, tmp_path: Path, bad: Bad) -> None:
    """Have it refused, in these words, and mended by the command in them."""
    upload = make(place, tmp_path, bad.recipe)
    reply = say(door, upload)
    assert re.match(f"550 Refused: {bad.words}", reply), reply
    assert str(tmp_path) not in reply
    if bad.mended:
        command = re.sub(r".*?(?:with|without): ", "", reply.partition(", or go on after")[0])
        images.run("sh", "-ec", f"cd {upload.parent}; {command} 2>&1")
        assert inspect.inspect(upload.parent / bad.mended, Config()).reply == "226 Accepted"


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_taken_is_refused_with_the_cure(door: House, place: Path, tmp_path: Path, kind: str) -> None:
    refuse(door, place, tmp_path, REFUSED[kind])


@pytest.mark.parametrize("kind", IN_BASE)
def test_what_the_base_image_has_is_taken(door: House, place: Path, tmp_path: Path, base: BaseImage, kind: str) -> None:
    assert base.root.is_file()
    upload = make(place, tmp_path, IN_BASE[kind])
    assert inspect.inspect(upload, Config()).accepted
    if kind != "a package that may have it":  # for which an archive would be asked
        job(door, say(door, upload))


@pytest.mark.parametrize("kind", NOT_IN_BASE)
def test_what_neither_image_nor_base_image_has_is_refused(
    door: House, place: Path, tmp_path: Path, base: BaseImage, kind: str
) -> None:
    assert base.root.is_file()
    refuse(door, place, tmp_path, NOT_IN_BASE[kind])


def test_a_name_that_would_be_an_option_is_not_said_in_a_command(door: House, place: Path, tmp_path: Path) -> None:
    upload = make(place, tmp_path, "cp whole.img up.img; head -c 1M whole.img >>up.img")
    upload = upload.rename(upload.with_name("-rf"))
    assert say(door, upload).endswith("truncate -s 4194304 FILE")


def test_a_refusal_names_the_file_as_it_was_renamed(door: House, place: Path, tmp_path: Path) -> None:
    upload = make(place, tmp_path, "gzip -c whole.img >up.img; echo >>up.img")
    with door.connect() as control:
        assert control.log_in().store("/queue/up.img.part", upload.read_bytes()).startswith("226 Kept")
        assert control.ask("RNFR /queue/up.img.part").startswith("350")
        assert control.ask("RNTO /queue/up.img") == inspect.inspect(upload, Config()).reply


def test_a_long_upload_that_is_refused_while_it_comes_is_told_the_same(
    door: House, place: Path, tmp_path: Path
) -> None:
    upload = make(place, tmp_path, "cp whole.img up.img; head -c 1M whole.img >>up.img; truncate -s 64M up.img")
    with door.connect() as control:
        with control.log_in().begin("/queue/up.img") as data, contextlib.suppress(ConnectionError):
            data.sendall(upload.read_bytes())
        reply = control.reply()
    assert reply == inspect.inspect(upload, Config()).reply
    assert reply.endswith("cut it there with: truncate -s 4194304 up.img")
