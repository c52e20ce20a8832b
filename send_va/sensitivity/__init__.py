"""What a table of school effects rests on: choices, assumptions, and what schools would gain by acting on it."""
