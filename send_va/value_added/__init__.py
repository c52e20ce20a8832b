"""Value-added: a cohort and what is known of need in, SchoolEffects out."""
