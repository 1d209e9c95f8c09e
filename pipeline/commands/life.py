"""The verbs of a dataset's life: status, log, verify, rollback, gc."""

import sys
from collections import Counter
from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError
from fourmill.pipeline.cli import write_json
from fourmill.pipeline.commands.quality import as_json as quality_json
from fourmill.pipeline.commands.quality import show as show_quality


def status(
    root: Positional[str], failed: bool = False, quality: bool = False, json: bool = False
) -> int:
    """What is there: modalities, samples, failures, what is stale, what is unfinished.

    Args:
        root: the dataset.
        failed: list every failed sample with its reason.
        quality: show what the labels look like, and what is odd about them; docs/quality.md.
        json: print JSON.

    Returns:
        0, or 1 if something is stale or unfinished.
    """
    dataset = Dataset.open(root, create=True)
    state = dataset.status()
    failures = {
        each.modality: dataset.failures(each.modality) for each in state.modalities if each.failed
    }
    looked = [] if dataset.is_empty or not quality else dataset.quality()
    code = int(any(each.is_stale for each in state.modalities) or bool(state.unfinished))
    if json:
        listed = {name: [asdict(each) for each in rows] for name, rows in failures.items()}
        write_json(
            {
                "root": dataset.url,
                "snapshot": None if dataset.is_empty else dataset.head.id,
                "modalities": [asdict(each) for each in state.modalities],
                "unfinished": [asdict(each) for each in state.unfinished],
                "aside": dataset.names,
                "failures": listed,
            }
            | ({"quality": quality_json(looked)} if quality else {})
        )
        return code
    out = _out()
    table = _table("modality", "made by", "samples", "failed", "size", "state")
    for each in state.modalities:
        table.add_row(
            each.modality, each.producer, f"{each.samples:,}", f"{each.failed:,}",
            human_bytes(each.bytes), each.state,
        )  # fmt: skip
    out.print(table if state.modalities else f"{root}: empty")
    for begun in state.unfinished:
        out.print(
            f"unfinished: {begun.folder} ({begun.producer}), {begun.shards_done} of "
            f"{begun.shards} shards"
        )
    for name in dataset.names:
        out.print(f"aside: {name}; `fourmill switch {root} {name}` makes it current", markup=False)
    for name, rows in failures.items():
        if failed:
            for row in rows:
                out.print(f"{name}: {row.key}: {row.stage}: {row.message}", markup=False)
        else:
            reasons = Counter(row.message for row in rows).most_common(1)
            out.print(f"{name}: {len(rows)} failed, most often: {reasons[0][0]}", markup=False)
    if looked:
        out.print()
        show_quality(out, looked)
    return code


def log(root: Positional[str], json: bool = False) -> None:
    """The snapshots, newest first.

    Args:
        root: the dataset.
        json: print JSON.
    """
    dataset = Dataset.open(root)
    entries = dataset.log()
    if json:
        write_json(
            [
                {"id": each.id, "time": each.time.isoformat(), "message": each.snapshot.message}
                for each in entries
            ]
        )
        return
    table = _table("snapshot", "written (UTC)", "modalities", "what")
    for each in entries:
        table.add_row(
            each.id[:12], f"{each.time:%Y-%m-%d %H:%M:%S}", str(len(each.snapshot.modalities)),
            each.snapshot.message,
        )  # fmt: skip
    _out().print(table)
    for name, id_ in dataset.names.items():
        message = dataset.snapshot(name).message
        _out().print(f"aside: {name} ({id_[:12]}), {message}", markup=False)


def verify(root: Positional[str], deep: bool = False, json: bool = False) -> int:
    """Whether all files are there and as recorded.

    Args:
        root: the dataset.
        deep: read every byte: hashes, keys, labels.
        json: print JSON.

    Returns:
        0 for a good dataset, 1 if anything is wrong.
    """
    problems = Dataset.open(root).verify(deep)
    if json:
        write_json([asdict(each) for each in problems])
    else:
        for each in problems:
            where = f"{each.file} {each.sample}".strip()
            _out().print(f"{where}: {each.reason}; {each.remedy}", markup=False)
        _out().print(f"{len(problems)} problems" if problems else "all as recorded")
    return int(bool(problems))


def rollback(root: Positional[str], snapshot: Positional[str]) -> None:
    """Make an earlier snapshot's versions current again, as a new snapshot; nothing is lost.

    Args:
        root: the dataset.
        snapshot: the beginning of its id (`fourmill log` lists them), or `HEAD~1` for the one
            before the current.
    """
    head = Dataset.open(root).rollback(snapshot)
    _out().print(f"current: {head.id[:12]}, {head.message}")


def gc(
    root: Positional[str],
    keep: int | None = None,
    unfinished: bool = False,
    dry_run: bool = False,
    yes: bool = False,
    json: bool = False,
) -> None:
    """Remove what no snapshot of the current chain needs, after asking.

    Args:
        root: the dataset.
        keep: how many snapshots to keep; all by default.
        unfinished: also unfinished work that is younger than a day.
        dry_run: only say.
        yes: do not ask.
        json: print JSON.
    """
    dataset = Dataset.open(root)
    garbage = dataset.gc(dry_run=True, keep=keep, unfinished=unfinished)
    total = human_bytes(sum(each.bytes for each in garbage))
    if not json:
        for each in garbage:
            _out().print(f"{each.path}: {human_bytes(each.bytes)}, {each.reason}", markup=False)
    is_agreed = not dry_run and bool(garbage) and (yes or _agrees(f"remove these {total}"))
    if is_agreed:
        garbage = dataset.gc(keep=keep, unfinished=unfinished)
        total = human_bytes(sum(each.bytes for each in garbage))
    if json:
        write_json([asdict(each) for each in garbage])
    else:
        _out().print(f"{'freed' if is_agreed else 'would free'} {total}" if garbage else "nothing")


def _agrees(what: str) -> bool:
    """Ask on the terminal; where there is none, nobody can agree.

    Raises:
        ConfigError: it says what to pass instead.
    """
    if not sys.stdin.isatty():
        raise ConfigError(
            f"{what}? There is no terminal to ask on: pass --yes to do it, or --dry-run to look"
        )
    sys.stderr.write(f"{what}? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def human_bytes(count: int | float) -> str:
    """Bytes in words.

    >>> human_bytes(1536)
    '1.5 KiB'
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _out() -> Console:
    return Console(file=sys.stdout, highlight=False, soft_wrap=True)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for each in columns:
        table.add_column(each, justify="right" if each in ("samples", "failed", "size") else "left")
    return table
