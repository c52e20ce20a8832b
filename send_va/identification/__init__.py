"""Who is labelled, and by whose threshold."""
