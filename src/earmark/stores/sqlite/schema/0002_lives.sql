-- A move id is used once, by one consumer; a consumer's claims of other purposes than main are found without a search.

CREATE TABLE moves (
  move TEXT PRIMARY KEY CHECK (move <> ''),
  stream INTEGER NOT NULL REFERENCES streams (number)
) STRICT, WITHOUT ROWID;

CREATE INDEX other_claims ON claims (consumer) WHERE purpose <> 'main' AND cause IS NULL;

-- What a host monitor saw, for the node of the host; beside the chain, and bounded.
CREATE TABLE samples (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  stream TEXT NOT NULL,
  at_ms INTEGER NOT NULL,
  sample BLOB NOT NULL
) STRICT;
CREATE INDEX sampled ON samples (stream, number);
