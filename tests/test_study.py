"""The study file: what is understood, and what each mistake is told."""

from pathlib import Path

import pytest

from send_va.errors import StudyError
from send_va.study import load_study

GOOD = """
[study]
title = "A study"
[data]
file = "pupils.parquet"
[roles]
pupil = "id"
school = "URN"
outcome = "y"
prior = "ks2"
sen_status = "SEN"
[value_added]
contexts = ["prior", "cva"]
draws = 200
"""


def load(tmp_path: Path, text: str):
    path = tmp_path / "study.toml"
    path.write_text(text, encoding="utf-8")
    return load_study(path)


def test_values_and_defaults(tmp_path: Path) -> None:
    study = load(tmp_path, GOOD)
    assert study.value_added.contexts == ("prior", "cva")
    assert (study.value_added.draws, study.value_added.coverage, study.prior.knots) == (200, 0.95, 5)
    assert (study.roles.school, study.roles.prior) == ("URN", ("ks2",))
    assert study.sen.support == ("K",)
    assert study.folder == tmp_path


def test_settings_hold_no_path(tmp_path: Path) -> None:
    study = load(tmp_path, GOOD.replace("pupils.parquet", str(tmp_path / "deep" / "pupils.parquet")))
    assert str(tmp_path) not in repr(study.settings())


def test_fingerprint_follows_what_decides_the_result(tmp_path: Path) -> None:
    one, same = load(tmp_path, GOOD), load(tmp_path, GOOD)
    other = load(tmp_path, GOOD.replace("200", "300"))
    assert one.fingerprint("hash") == same.fingerprint("hash")
    assert len({one.fingerprint("hash"), one.fingerprint("other"), other.fingerprint("hash")}) == 3


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[value_added]", "[value_aded]", "Did you mean value_added"),
        ("draws", "drawz", "Did you mean draws"),
        ('"cva"]', '"cav"]', "Did you mean cva"),
        ("draws = 200", "draws = 20", "100 or more"),
        ("draws = 200", 'draws = "many"', "whole number"),
        ("draws = 200", "residual_by_need = 1", "true or false"),
        ("draws = 200", "coverage = 95", "below 1"),
        ('["prior", "cva"]', "[]", "names nothing"),
        ('["prior", "cva"]', '"prior"', "list of text"),
        ("[study]", "[identification]\narea_sorting_share = []\n[study]", "area_sorting_share: names no value. Name"),
        ("[study]", "[identification]\nlabel_reliability = []\n[study]", "label_reliability: names no value. Name"),
        ("[study]", "[identification]\nsorting_share = []\n[study]", "n.sorting_share: names no value. Name"),
        ('file = "pupils.parquet"', "", "file is missing"),
        ("[study]", "[outcome]\nminimum = 9\nmaximum = 3\n[study]", "below outcome.maximum"),
        ("[study]", "[publication]\nminimum_need = 0\nminimum_reliability = 2.0\n[study]", "between 0 and 1"),
        ('school = "URN"', 'shool = "URN"', "did you mean 'school'|Did you mean 'school'"),
        ('outcome = "y"', "", "roles.outcome"),
        ("[study]", '[sen]\nsuport = ["K"]\n[study]', "Did you mean support"),
        ("[study]", '[sen]\nnone = ["K"]\n[study]', "one level"),
        ("[study]", "columns = 3\n[study]", "must be a table"),
        ("[study]", "[columns]\nschool = 3\n[study]", "columns.school: must be text"),
        ("[study]", "[ranking]\nset_draws = 10\n[study]", "ranking.set_draws: must lie between 100 and 100000"),
        ("[study]", "[ranking]\nloss_ratio = 0.3\ndiscordance_rate = 0.1\n[study]", "give one of them"),
        ("[study]", "[ranking]\nloss_ratio = 0.0\n[study]", "ranking.loss_ratio: must be above 0 and at most 1"),
        ("[study]", "[ranking]\ndiscordance_rate = 0.5\n[study]", "discordance_rate: must be above 0 and below 0.5"),
        ("[study]", '[ranking]\ngrade_prior = "normal"\n[study]', "must be one of spline, mixture"),
        ("[study]", "[publication]\nmaximum_rank_width = 0.0\n[study]", "maximum_rank_width: must be above 0"),
        ("[study]", "[publication]\nmaximum_disagreement = -1\n[study]", "maximum_disagreement: must be above 0"),
        ("[study]", "[study]\nseed = -1", "study.seed: must be 0 or more"),
        ("[study]", "[study", "not a TOML file"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        load(tmp_path, GOOD.replace(old, new))


def test_every_mistake_is_listed(tmp_path: Path) -> None:
    text = GOOD.replace("draws", "drawz").replace("[study]\ntitle", "[study]\ntitel").replace("school =", "shool =")
    with pytest.raises(StudyError) as caught:
        load(tmp_path, text)
    assert {failure.column for failure in caught.value.failures} == {"titel", "drawz", "roles.shool", "roles.school"}


def test_unknown_keys_and_values_out_of_range_are_listed_together(tmp_path: Path) -> None:
    bayes = "[bayes]\nchainz = 4\nchains = 1\nrhat = 0.5\ntune = true\n[study]"
    with pytest.raises(StudyError) as caught:
        load(tmp_path, GOOD.replace("[study]", bayes, 1))
    assert {failure.column for failure in caught.value.failures} == {
        "chainz",
        "bayes.chains",
        "bayes.rhat",
        "bayes.tune",
    }


def test_an_absent_study_file(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"there is no study file nowhere\.toml"):
        load_study(tmp_path / "nowhere.toml")
