"""Check with Great Expectations that the rows are fit to train on.

Rows that fail a check are quarantined or stop the run, as the check's action says.

valid/rows.parquet         the remaining rows, unchanged
valid/quarantine.jsonl     the quarantined rows, each with the checks it failed; rows in = rows out
                           + rows here
valid/account.json         what became of all rows so far (see data/quality/row_account.py)
valid/failed.jsonl         only when the run stops: rows that failed a check whose action is `error`
validation_report          every check's outcome, and a profile of the remaining rows
valid/unlabelled.parquet   as in raw, if there
data_docs/index.html       the outcomes as a page in the style of Great Expectations' Data Docs
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.core.errors import DataError, ParamsError, did_you_mean
from tasks.core.files import write_jsonl, write_text
from tasks.core.progress import Report
from tasks.data.quality.checks import Check, general_checks, own_check
from tasks.data.quality.data_docs import render_page
from tasks.data.quality.expectations import Outcome, concerns_rows, require_known
from tasks.data.quality.profile import profile
from tasks.data.quality.row_account import Account, Losses
from tasks.data.quality.row_validation import PHASES, CheckedRows, phase_of
from tasks.data.tables.quarantine import say_place
from tasks.data.tables.row_store import RowStore
from tasks.data.tables.unlabelled_rows import UNLABELLED
from tasks.params.schema import ValidateParams
from tasks.problems import Problem, load_problem
from tasks.reports.stage_reports import CheckReport, ValidationReport


def validate_rows(
    raw: Path, valid: Path, validation_report: Path, data_docs: Path,
    *, problem: str, labels: tuple[str, ...], validate: ValidateParams, report: Report,
) -> None:  # fmt: skip
    """Check raw/rows.parquet and write the outs.

    Raises DataError, after writing them, if a check whose action is `error` fails or no row is
    left.
    """
    problem_type = load_problem(problem)
    rows = RowStore(raw / "rows.parquet")
    valid.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix=".validate.", dir=valid.parent) as scratch,
        ThreadPoolExecutor(1) as pool,
    ):
        # read the texts while Great Expectations is imported, which takes seconds
        texts, label = problem_type.rows.text_columns, problem_type.rows.label_column
        reading = pool.submit(
            CheckedRows, rows, texts, label, labels,
            validate.script, problem_type.rows.facts, Path(scratch) / "texts",
        )  # fmt: skip
        checks = resolve_checks(problem_type, labels, validate)
        judged = reading.result()
    report(1, {"progress": 0.3})
    for phase in range(PHASES):
        judged.run([check for check in checks if phase_of(check) == phase], phase)
        report(2 + phase, {"progress": 0.6 + 0.1 * phase})
    outcomes = sorted(judged.outcomes, key=lambda outcome: checks.index(outcome.check))
    valid.mkdir(parents=True)
    kept = write_remaining(rows, judged.alive, valid / "rows.parquet")
    if (raw / UNLABELLED).is_file():
        shutil.copyfile(raw / UNLABELLED, valid / UNLABELLED)
    losses = Losses("validate")
    write_jsonl(valid / "quarantine.jsonl", losses.watch(judged.quarantine()))
    account = Account.read(raw).less(losses.found())
    account.write(valid)
    off = sorted(name for name, action in validate.actions.items() if action == "off")
    entries = [describe(outcome, judged) for outcome in outcomes]
    columns = [*problem_type.rows.columns, *problem_type.rows.derived]
    result = ValidationReport(
        rows_in=len(rows),
        rows_out=kept,
        quarantined=len(rows) - kept,
        account=account.plain(),
        checks=entries,
        off=off,
        profile=profile(valid / "rows.parquet", texts, label, columns),
    )
    result.write(validation_report)
    write_text(data_docs / "index.html", render_page(outcomes, len(rows)))
    _raise_failures(result.failed, judged, account, valid, validation_report)
    report(6, {"progress": 1.0, "rows": kept, "quarantined": len(rows) - kept})


def write_remaining(rows: RowStore, alive: npt.NDArray[np.bool_], path: Path) -> int:
    """Write the remaining rows unchanged; returns their number."""
    with pq.ParquetWriter(path, rows.schema, compression="zstd") as writer:
        for first, batch in rows.batches():
            stay = alive[first : first + len(batch)]
            if stay.any():
                writer.write_table(batch.filter(pa.array(stay)))
    return int(alive.sum())


def resolve_checks(
    problem: Problem, labels: Sequence[str], validate: ValidateParams
) -> list[Check]:
    """All checks that are not off, with their actions.

    Raises ParamsError for unknown names and expectations, and for actions that do not apply.
    """
    checks = general_checks(problem.rows.text_columns, validate) + problem.rows.expectations(
        validate, labels
    )
    names = [check.name for check in checks]
    unknown = [
        f"'{name}'.{did_you_mean(name, names)}" for name in validate.actions if name not in names
    ]
    if unknown:
        raise ParamsError(
            f"validate.actions: there is no check {' and no '.join(unknown)}",
            f"Checks: {', '.join(names)}.",
        )
    checks = [
        replace(check, action=validate.actions.get(check.name, check.action)) for check in checks
    ]
    own = [own_check(number, item) for number, item in enumerate(validate.expectations)]
    require_known(own)
    checks = [check for check in checks + own if check.action != "off"]
    of_table = [
        check.name for check in checks if check.action == "quarantine" and not concerns_rows(check)
    ]
    if of_table:
        raise ParamsError(
            f"validate: {', '.join(of_table)} concerns the table as a whole: "
            "there are no rows to quarantine.",
            "Set its action to error, warn or off.",
        )
    return checks


def describe(outcome: Outcome, judged: CheckedRows) -> CheckReport:
    """A check's entry in the report."""
    check, count = outcome.check, len(outcome.missed)
    return CheckReport(
        name=check.name,
        type=check.type,
        action=check.action,
        success=outcome.success,
        message=_message(outcome),
        judged=outcome.judged,
        unexpected=count,
        share=round(count / outcome.judged, 6),
        observed=outcome.observed,
        examples=judged.examples(outcome),
    )


def _message(outcome: Outcome) -> str:
    """What was wrong, in words; '' if nothing was."""
    check, count = outcome.check, len(outcome.missed)
    if count:
        allowed = ""
        if "mostly" in check.kwargs and not outcome.success:
            allowed = f", {1 - check.kwargs['mostly']:.4g} may"
        share = f"{count / outcome.judged:.2%}{allowed}"
        return f"{count} of {outcome.judged} rows ({share}): {check.says}"
    if outcome.success:
        return ""
    value = outcome.observed
    if isinstance(value, Mapping):
        value = ", ".join(f"'{label}'" for label in value.get("missing") or [])
    return f"{check.says}: {value:.4g}" if isinstance(value, float) else f"{check.says}: {value}"


def _raise_failures(
    failed: Sequence[CheckReport],
    judged: CheckedRows,
    account: Account,
    valid: Path,
    report: Path,
) -> None:
    """Raise one DataError for all failures.

    It lists what was quarantined and why, then the failed checks, each with its first rows.

    failed  those whose action is `error`
    """
    lines = [f"  {check.name}: {check.message}{_say_rows(check, judged)}" for check in failed]
    if not account.used:
        lines.append(f"  no row is left: all {account.held} were set aside")
    if not lines:
        return
    names = {check.name for check in failed}
    write_jsonl(
        valid / "failed.jsonl",
        judged.missing([outcome for outcome in judged.outcomes if outcome.check.name in names]),
    )
    raise DataError(
        "the data is not fit to train on.\n"
        + "\n".join([*account.lines(), "Failed checks:", *lines]),
        "Fix the rows, or params.yaml (`labels`; `validate.actions: {CHECK: quarantine}` sets rows "
        "aside, `warn` lets them pass), then run the command again. "
        f"The whole report is {report}, the rows are in {valid}.",
    )


def _say_rows(check: CheckReport, judged: CheckedRows) -> str:
    """First rows that fail a check, as ': 'neutrl' (a.csv line 3, a.csv line 9) Did you mean…'."""
    outcome = next(outcome for outcome in judged.outcomes if outcome.check.name == check.name)
    known = [str(value) for value in outcome.check.kwargs.get("value_set", ())]
    by_value: dict[str, list[str]] = {}
    for example in check.examples:  # of a list of labels, `found` is the unknown one
        value = str(example["found"] if known else example["excerpt"])
        by_value.setdefault(value, []).append(say_place(example))
    phrases = []
    for value, places in list(by_value.items())[:5]:
        first = f"{', '.join(places[:3])}{', …' if len(places) > 3 else ''}"
        phrases.append(f"'{value}' ({first}){did_you_mean(value, known)}")
    return ": " + "; ".join(phrases) + (" …" if len(by_value) > 5 else "") if phrases else ""
