-- Overlapping states cannot be written: each rule below is a constraint, not a habit.

CREATE TABLE ledger (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  id TEXT NOT NULL CHECK (length(id) = 36),
  failed_commits INTEGER NOT NULL DEFAULT 0 CHECK (failed_commits >= 0)
) STRICT;

CREATE TABLE streams (
  number INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE CHECK (name <> '')
) STRICT;

-- The newest event of a stream is its head; epoch and at_ms repeat what raw says, so that a head is read without it.
CREATE TABLE events (
  position INTEGER PRIMARY KEY CHECK (position >= 1),
  stream INTEGER NOT NULL REFERENCES streams (number),
  sequence INTEGER NOT NULL CHECK (sequence >= 1),
  epoch INTEGER NOT NULL CHECK (epoch >= 0),
  at_ms INTEGER NOT NULL,
  hash BLOB NOT NULL CHECK (length(hash) = 32),
  raw BLOB NOT NULL,
  UNIQUE (stream, sequence)
) STRICT;

-- Where a stream's chain begins once older events were moved to an archive.
CREATE TABLE sealed (
  stream INTEGER PRIMARY KEY REFERENCES streams (number),
  sequence INTEGER NOT NULL CHECK (sequence >= 1),
  epoch INTEGER NOT NULL CHECK (epoch >= 0),
  at_ms INTEGER NOT NULL,
  hash BLOB NOT NULL CHECK (length(hash) = 32),
  position INTEGER NOT NULL CHECK (position >= 1)
) STRICT;
CREATE INDEX sealed_position ON sealed (position);

-- One row for each claim that ever was; cause NULL: it is open.
CREATE TABLE claims (
  claim TEXT PRIMARY KEY CHECK (claim <> ''),
  stream INTEGER NOT NULL REFERENCES streams (number),
  consumer TEXT NOT NULL CHECK (consumer <> ''),
  purpose TEXT NOT NULL CHECK (purpose <> ''),
  cause TEXT
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX main_claim ON claims (consumer) WHERE purpose = 'main' AND cause IS NULL;

-- One holder for each exclusion slot of a node.
CREATE TABLE slots (
  stream INTEGER NOT NULL REFERENCES streams (number),
  slot TEXT NOT NULL CHECK (slot <> ''),
  claim TEXT NOT NULL REFERENCES claims (claim),
  unit TEXT NOT NULL CHECK (unit <> ''),
  PRIMARY KEY (stream, slot)
) STRICT, WITHOUT ROWID;
CREATE INDEX slots_of_claim ON slots (claim);

-- Beside the chain, and bounded.

CREATE TABLE answers (
  owner TEXT NOT NULL,
  key TEXT NOT NULL,
  digest TEXT NOT NULL,
  answer BLOB NOT NULL,
  at_ms INTEGER NOT NULL,
  PRIMARY KEY (owner, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX answers_age ON answers (at_ms);

CREATE TABLE snapshots (
  stream INTEGER NOT NULL REFERENCES streams (number),
  sequence INTEGER NOT NULL CHECK (sequence >= 1),
  fold_version INTEGER NOT NULL,
  hash BLOB NOT NULL CHECK (length(hash) = 32),
  position INTEGER NOT NULL,
  image BLOB NOT NULL,
  UNIQUE (stream, sequence)
) STRICT;

CREATE TABLE refusals (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  stream TEXT NOT NULL,
  owner TEXT NOT NULL,
  at_ms INTEGER NOT NULL,
  refusal BLOB NOT NULL
) STRICT;

CREATE TABLE tickets (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  stream TEXT NOT NULL,
  owner TEXT NOT NULL,
  request BLOB NOT NULL,
  holder BLOB NOT NULL,
  at_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX line ON tickets (stream, number);

CREATE TABLE observations (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  stream TEXT NOT NULL,
  at_ms INTEGER NOT NULL,
  observation BLOB NOT NULL
) STRICT;
CREATE INDEX observed ON observations (stream, number);
