"""The folder of an evaluation: written aside, task by task, and put in place when all are done.

OUT/report.json       all figures
OUT/report.md         the same for people, beside published ones
OUT/<task>.jsonl      scores of every sample
OUT/<task>.png        the best, the median and the worst samples

What an evaluation that was killed had finished is kept aside, and is not done again.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from fourmill.manifests.errors import ConfigError
from fourmill.manifests.hashing import canonical_json
from fourmill.train.evaluation.contest import Result
from fourmill.train.evaluation.report import markdown, sample_records, task_record
from fourmill.train.runs import LOCK, held, replace_file

_REPORT, _PAGE, _IDENTITY = "report.json", "report.md", "identity.json"


class ReportFolder:
    """Where one evaluation is written.

    Args:
        out: the folder that there is at the end.
        identity: all that decides the figures; JSON.

    Raises:
        ConfigError: `out` holds something else.
    """

    def __init__(self, out: Path, identity: Mapping[str, Any]) -> None:
        self.out = out
        self._aside = out.with_name(f".{out.name}.unfinished")
        self._identity = canonical_json(dict(identity))
        self._refuse_other()

    def finished(self) -> dict[str, Any] | None:
        """The report of this very evaluation, if it was done before."""
        if _bytes(self.out / _IDENTITY) != self._identity:
            return None
        report = _bytes(self.out / _REPORT)
        found: dict[str, Any] | None = None if report is None else json.loads(report)
        return found

    @contextmanager
    def begun(self) -> Iterator[None]:
        """Keep all others from writing it, and make room; what was done of this very evaluation
        stays.

        Raises:
            ConfigError: another process writes it, or wrote another evaluation there meanwhile.
        """
        refusal = f"{self.out}: another process evaluates there; wait for it, or give another --out"
        with held(self._aside, refusal):
            self._refuse_other()
            if _bytes(self._aside / _IDENTITY) != self._identity:
                for each in self._aside.iterdir():
                    if each.name != LOCK:
                        each.unlink()
            replace_file(self._aside / _IDENTITY, self._identity)
            yield

    def done(self, task: str) -> dict[str, Any] | None:
        """The record of a task that was finished before."""
        data = _bytes(self._aside / f"{task}.json")
        record: dict[str, Any] | None = None if data is None else json.loads(data)
        return record

    def keep(self, result: Result, panel: Image.Image | None) -> dict[str, Any]:
        """Write one task down; gives its record."""
        name = result.task.name
        record = task_record(result)
        lines = [json.dumps(each) for each in sample_records(result)]
        replace_file(self._aside / f"{name}.jsonl", ("\n".join(lines) + "\n").encode())
        if panel is not None:
            panel.save(self._aside / f"{name}.png")
            record["panel"] = f"{name}.png"
        replace_file(self._aside / f"{name}.json", json.dumps(record).encode())
        return record

    def commit(self, report: Mapping[str, Any]) -> None:
        """Write the report, and put all of it in place."""
        for record in report["tasks"]:
            (self._aside / f"{record['task']}.json").unlink(missing_ok=True)
        replace_file(self._aside / _PAGE, markdown(report).encode())
        replace_file(self._aside / _REPORT, json.dumps(report, indent=1).encode())
        self._aside.rename(self.out)
        (self.out / LOCK).unlink()

    def _refuse_other(self) -> None:
        is_empty = self.out.is_dir() and not any(self.out.iterdir())
        if self.out.exists() and not is_empty and self.finished() is None:
            raise ConfigError(
                f"{self.out} holds something else than this evaluation: give another --out, or "
                f"begin anew with --fresh, which sets it aside"
            )


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None
