"""The Bayesian section of a study file: distributions of schools that exist, and what each does to authorities."""

from send_va.bayes_stages import bayes_options
from send_va.study_bayes import BayesSection


def test_schools_are_normal_unless_told() -> None:
    assert BayesSection().failures() == []
    assert bayes_options(BayesSection()).schools == "normal"
    assert bayes_options(BayesSection()).authorities_differ


def test_student_t_schools_have_no_authority_level() -> None:
    options = bayes_options(BayesSection(schools="student_t"))
    assert options.schools == "student_t"
    assert options.la_level and not options.authorities_differ


def test_an_unknown_distribution_is_named() -> None:
    (failure,) = BayesSection(schools="cauchy").failures()
    assert failure.column == "bayes.schools"
    assert "normal, student_t" in failure.rule
