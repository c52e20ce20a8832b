"""The [audit] table of a study file."""

from send_va.sensitivity.audit_settings import DEFAULT_TOLERANCE, AuditSettings
from send_va.study import CONTEXTS
from send_va.study_audit import AuditSection


def test_the_defaults_are_those_of_the_audit() -> None:
    section = AuditSection()
    assert section.failures(CONTEXTS) == []
    assert section.settings == AuditSettings()
    assert section.settings.used_tolerance == DEFAULT_TOLERANCE
    assert section.settings.said_tolerance == "0.02 pupil SDs (default)"
    assert AuditSection(tolerance=0.03).settings.said_tolerance == "0.03 pupil SDs"


def test_every_value_out_of_range_is_listed_with_its_key() -> None:
    section = AuditSection(share=0.6, foresight=-0.1, terms_kept=16.0, tolerance=0.0, contexts=("cva", "region"))
    assert [failure.column for failure in section.failures(CONTEXTS)] == [
        "audit.share",
        "audit.foresight",
        "audit.terms_kept",
        "audit.tolerance",
        "audit.contexts",
    ]
    assert section.failures(CONTEXTS)[-1].values == ("'region'",)


def test_words_and_no_context_are_refused() -> None:
    assert [f.column for f in AuditSection(share="5 %").failures(CONTEXTS)] == ["audit.share"]  # type: ignore[arg-type]
    assert [f.column for f in AuditSection(tolerance=True).failures(CONTEXTS)] == ["audit.tolerance"]
    assert [f.column for f in AuditSection(contexts=()).failures(CONTEXTS)] == ["audit.contexts"]
    assert AuditSection(contexts=("cva",)).failures(CONTEXTS) == []
