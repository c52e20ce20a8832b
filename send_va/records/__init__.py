"""Pupil records in: read lazily, checked by rule, described; and published tables, and synthetic cohorts."""
