"""The store on SQLite: one file, many processes."""
