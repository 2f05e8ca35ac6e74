"""What a run found, for people: tables in the terminal, a page in the browser."""
