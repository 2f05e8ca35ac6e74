"""The result of a run for people: tables in the terminal, a page in the browser."""
