"""`construir init`, `pack`, `unpack` and `inspect`: from a directory to a job and back; no server, machine or root."""

import shlex
from pathlib import Path

import click

from construir_ftp import formats
from construir_ftp.cli.options import PATH, SizeType, Source, Target, as_json_option, configured, print_json, printable
from construir_ftp.cli.output import bar
from construir_ftp.config import Config
from construir_ftp.errors import RefusedError, UsageError
from construir_ftp.jobs import names, request
from construir_ftp.pack import detect, pack, selection
from construir_ftp.pack.pack import Wrapping
from construir_ftp.units import Size

_SPACE = f"{pack.SPACE_BYTES >> 20}MiB"


@click.command("init")
@click.argument("directory", type=PATH, default=".")
@as_json_option
def init_command(directory: Path, as_json: bool) -> None:
    """Write a run.sh and a construir.toml for the project in DIRECTORY, here unless named; what is there stays.

    Known are Makefiles, CMake, Meson, autotools, Rust, Go, Python, npm and Debian's source packages, unpacked or as a
    .dsc with its files. Both files are a beginning, to be changed.
    """
    sketch, written, kept = detect.write(directory)
    if as_json:
        told = {"kind": sketch.kind, "written": [str(path) for path in written], "kept": [str(path) for path in kept]}
        print_json(told)
        return
    click.echo(f"found: {sketch.kind}")
    for path in written:
        click.echo(f"wrote {printable(str(path))}")
    for path in kept:
        click.echo(f"{printable(str(path))} is there already, and stays as it is")
    where = printable(shlex.quote(str(directory)))
    if sketch.outputs:
        click.echo(f"its result will have: {printable(', '.join(sketch.outputs))}")
    elif request.FILE in {path.name for path in written}:
        click.echo(f"name the files that you want of it as outputs in {printable(str(directory / request.FILE))}")
    click.echo(
        f"next: construir submit {where}; or, where an appliance is installed, without a server: construir run {where}"
    )


@click.command("pack")
@click.argument("source", metavar="DIR|GIT")
@click.option("-o", "output", type=Target(), help="File to write; NAME.img.zst, in this directory, unless given.")
@click.option("--git", "revision", metavar="REV", help="Pack the tree of this commit; HEAD of a repository GIT.")
@click.option(
    "--space",
    type=SizeType(),
    default=f"{pack.SPACE_BYTES >> 20}MiB",
    show_default=True,
    help="Free room for the job to fill.",
)
@click.option(
    "--codec", type=click.Choice(list(formats.FORMATS)), default="zstd", show_default=True, help="Outer format."
)
@click.option("--level", type=int, help="Its level: lower is quicker, higher is smaller.")
@click.option("--keep-times", is_flag=True, help="Keep when files were last changed; the image depends on it then.")
@click.option("--everything", is_flag=True, help="Leave nothing out, whatever .gitignore and .construirignore say.")
@as_json_option
def pack_command(
    source: str, output: Path | None, revision: str | None, as_json: bool, space: Size, codec: str, **wrapping: object
) -> None:
    """Make a job out of DIR, which holds run.sh, or of a commit in a git repository, GIT; no root is needed.

    The same files make the same image, byte for byte, whoever packs them, where and when: all of them get one time, of
    2 January 1980, or of the commit, or what SOURCE_DATE_EPOCH says. So make can't know that one of them is older than
    what was made from it: leave out what was made, or keep the times.

    Of a git checkout, what .gitignore names is left out, and .git. A file .construirignore in DIR can name more, in the
    same patterns, in any directory. Results that `construir run` and `fetch` put into DIR under their ids are left out.
    """
    is_repository = revision is not None or selection.is_repository(source)
    target = output or Path(f"{names.name_of(Path(source.removesuffix('.git')))}.img{formats.FORMATS[codec].suffix}")
    _check_suffix(target, codec)
    how = Wrapping(space_bytes=int(space), codec=codec, **wrapping)  # type: ignore[arg-type]
    with bar() as tell:
        if is_repository:
            left_out = pack.pack_commit(source, revision or "HEAD", target, how, tell)
        else:
            left_out = pack.pack_directory(Path(source), target, how, tell)
    size_bytes = target.stat().st_size
    if as_json:
        print_json({"file": str(target), "bytes": size_bytes, "left_out": left_out})
        return
    for words in left_out:
        click.echo(f"left out: {printable(words)}", err=True)
    click.echo(f"{target} ({size_bytes} bytes)")


def _check_suffix(target: Path, codec: str) -> None:
    """Raises UsageError for a name that says of an image that it is in another codec, or in none that there is."""
    own, suffix = formats.FORMATS[codec].suffix, target.suffix
    is_others = suffix in {row.suffix for row in formats.FORMATS.values()} - {own}
    if suffix and suffix != own and (is_others or Path(target.stem).suffix == ".img"):
        better = f"{target.name.removesuffix(suffix)}{own}"
        raise UsageError(f"{printable(target.name)} does not end as its codec, {codec}, does; name it {better}")


@click.command("unpack")
@click.argument("file", type=Source("name the image of a job or of a result"))
@click.argument("directory", type=PATH)
@click.option("--every-name", is_flag=True, help="Also what has a name that other systems would take for another.")
@configured
def unpack_command(_settings: Config, file: Path, directory: Path, every_name: bool) -> int:
    """Put what is in the job image FILE into DIRECTORY, which must be new or empty; no root is needed.

    Exits with 1 if something was left out for its name, or because it is nested too deep.
    """
    from construir_ftp.pack import unpack  # here, since packing works on systems where this does not

    left_out = unpack.unpack(file, directory, every_name=every_name)
    for left in left_out:
        click.echo(f"left out: {printable(str(left.path))} {left.why}", err=True)
    if any(left.cause == "name" for left in left_out):
        click.echo("to have these names too, if they can be had here: --every-name, into a new directory", err=True)
    return int(any(left.cause != "kind" for left in left_out))


@click.command("inspect")
@click.argument("file", type=Source("make a job with: construir pack DIR"))
@as_json_option
@configured
def inspect_command(settings: Config, file: Path, as_json: bool) -> int:
    """Say what a server would say of FILE, and why; exit with 0 if it would be accepted, with 65 if not.

    The limits are those of an appliance that nobody has configured, or of --config. Which base images, packages, layers
    and results there are, only a server knows.
    """
    from construir_ftp.pack import inspect

    report = inspect.inspect(file, settings)
    exit_code = 0 if report.accepted else RefusedError.exit_code
    if as_json:
        print_json(report)
        return exit_code
    click.echo(printable(report.reply))
    click.echo(f"name: {report.name}")
    if report.codec:
        click.echo(f"codec: {report.codec}, {report.upload_bytes} bytes, SHA-256 {report.upload_sha256}")
        click.echo(f"file system: {report.filesystem}, {report.image_bytes} bytes")
    for key, value in (report.asks or {}).items():
        click.echo(f"asks for {key}: {printable(_words(value))}")
    return exit_code


def _words(value: object) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key} {_words(inner)}" for key, inner in value.items() if inner)
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
