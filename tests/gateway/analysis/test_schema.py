"""The published JSON Schema and the types it is made from."""

from __future__ import annotations

import json

import jsonschema

from gateway.analysis import schema
from tests.gateway.analysis.sample_report import sample


def test_the_file_is_what_the_types_say() -> None:
    """`report.schema.json` was written again after the last change of a type (`python -m gateway.analysis.schema`)."""
    assert schema.FILE.read_text(encoding="utf-8") == schema.text()


def test_the_schema_is_a_schema() -> None:
    """It is valid in its own draft."""
    jsonschema.Draft202012Validator.check_schema(schema.build())


def test_a_complete_report_is_valid() -> None:
    """A report with every field passes, also with unknown fields forbidden."""
    jsonschema.validate(json.loads(json.dumps(sample())), schema.build(closed=True))


def test_a_field_of_a_later_version_is_allowed_and_a_missing_one_is_not() -> None:
    """Readers ignore what they do not know; what this version promises is required."""
    report = sample()
    report["later"] = 1
    validator = jsonschema.Draft202012Validator(schema.build())
    assert validator.is_valid(report)
    del report["findings"]
    assert not validator.is_valid(report)
