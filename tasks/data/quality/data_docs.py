"""Great Expectations' Data Docs as one self-contained page: no network access, no scripts."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.data.quality.expectations import Outcome
from tasks.data.quality.personal_data import mask

_SHOWN = 20  # unexpected values per check
_UNBOUNDED_KEYS = (
    "unexpected_list", "unexpected_index_list", "unexpected_index_query",
    "partial_unexpected_index_list", "unexpected_index_column_names",
)  # fmt: skip
_VALUE_KEYS = (
    "partial_unexpected_list", "partial_unexpected_counts", "observed_value",
    "details", "missing_list", "partial_missing_list",
)  # fmt: skip
_STYLE = """<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 1100px; padding: 1rem;
  color: #222; background: #fff; }
.navbar, .modal, footer, .cooltip, [data-toggle="modal"], .ge-info, .btn { display: none; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0; table-layout: fixed; }
td, th { border: 1px solid #ddd; padding: .3rem .6rem; text-align: left; vertical-align: top;
  overflow-wrap: anywhere; }
.badge { background: #eee; border-radius: .3rem; padding: .1rem .4rem;
  font-family: ui-monospace, monospace; }
.fa-check-circle::before { content: "\\2713"; color: #080; }
.fa-times::before { content: "\\2717"; color: #b00; }
.fa-exclamation-triangle::before { content: "!"; color: #b60; }
</style>"""


def render_page(outcomes: Sequence[Outcome], rows: int) -> str:
    """Render the outcomes as HTML, values masked and escaped; deterministic.

    rows   number of rows in all
    """
    import great_expectations
    from great_expectations.core.expectation_validation_result import (
        ExpectationSuiteValidationResultSchema,
    )
    from great_expectations.render.renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    results = [_result(outcome) for outcome in outcomes]
    passed = sum(result["success"] for result in results)
    suite = {
        "success": passed == len(results),
        "suite_name": f"ratchet, {rows} rows",
        "suite_parameters": {},
        "results": results,
        "statistics": {
            "evaluated_expectations": len(results),
            "successful_expectations": passed,
            "unsuccessful_expectations": len(results) - passed,
            "success_percent": 100.0 * passed / max(1, len(results)),
        },
        "meta": {
            "great_expectations_version": great_expectations.__version__,
            "batch_kwargs": {},
            "run_id": {"run_name": "ratchet", "run_time": "1970-01-01T00:00:00+00:00"},
        },
    }
    # round-trip through JSON and the schema, as a store would: NumPy numbers break the renderer
    document = ValidationResultsPageRenderer().render(
        ExpectationSuiteValidationResultSchema().load(json.loads(json.dumps(suite)))
    )
    return _self_contained(DefaultJinjaPageView().render(document))


def _result(outcome: Outcome) -> dict[str, Any]:
    details = dict(outcome.details)
    result = {
        key: _safe(value) if key in _VALUE_KEYS else value
        for key, value in details["result"].items()
        if key not in _UNBOUNDED_KEYS
    }
    check = outcome.check
    config = dict(details["expectation_config"])
    config["kwargs"] = {key: value for key, value in config["kwargs"].items() if key != "batch_id"}
    note = _safe(f"{check.name}, {check.action}: {check.says}")
    config["meta"] = {"notes": {"format": "string", "content": [note]}}
    return {**details, "expectation_config": config, "result": result}


def _safe(value: object) -> object:
    """Mask and HTML-escape texts, spelling out control characters: Data Docs' tables do neither."""
    if isinstance(value, Mapping):
        return {key: _safe(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_safe(item) for item in value[:_SHOWN]]
    if isinstance(value, float) and value.is_integer():  # an integer of a column with nulls
        return int(value)
    return html.escape(mask(value)) if isinstance(value, str) else value


def _self_contained(page: str) -> str:
    """Strip the scripts, style sheets and images it would fetch, and all that varies by run."""
    page = re.sub(r"<script\b.*?</script\s*>", "", page, flags=re.DOTALL | re.IGNORECASE)
    page = re.sub(r"<(?:link|img)\b[^>]*>", "", page, flags=re.IGNORECASE)
    page = re.sub(r"<footer\b.*?</footer\s*>", "", page, flags=re.DOTALL | re.IGNORECASE)
    page = re.sub(r"background: url\([^)]*\)[^;]*;", "", page)
    # links to pages of a site that does not exist, and the made-up name and time of the run
    page = re.sub(r'href="\.\./[^"]*"', "", page)
    run_row = r"<tr\b[^>]*>(?:(?!</tr>).)*Run (?:Name|Time)(?:(?!</tr>).)*</tr>"
    page = re.sub(run_row, "", page, flags=re.DOTALL)
    page = page.replace("</head>", f"{_STYLE}</head>", 1)
    numbered_ids: dict[str, str] = {}
    return re.sub(
        r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",
        lambda uuid: numbered_ids.setdefault(uuid[0], f"id{len(numbered_ids)}"),
        page,
    )
