-- Tables of runs trained elsewhere, each under a name as sweeps have. `data`: zlib over records as JSON lines.
CREATE TABLE imported (
  name             TEXT PRIMARY KEY,
  source           TEXT NOT NULL DEFAULT '',
  mapping          TEXT NOT NULL DEFAULT '',
  runs             INTEGER NOT NULL,
  bytes            INTEGER NOT NULL,
  data             BLOB NOT NULL,
  imported_unix_ms INTEGER NOT NULL
) WITHOUT ROWID;
