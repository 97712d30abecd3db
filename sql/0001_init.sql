-- First schema. docs: sql/schema.md. Times end in _unix_ms, are UTC, for people, and decide nothing.

CREATE TABLE meta (
  key   TEXT PRIMARY KEY,
  value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE sweeps (
  sweep_id           INTEGER PRIMARY KEY,
  name               TEXT NOT NULL UNIQUE,
  description        TEXT NOT NULL DEFAULT '',
  tags_json          TEXT NOT NULL DEFAULT '{}',
  spec_json          TEXT NOT NULL DEFAULT '{}',
  content_hash       TEXT NOT NULL DEFAULT '',
  request_uuid       TEXT NOT NULL DEFAULT '',
  state              TEXT NOT NULL CHECK (state IN ('expanding', 'active', 'paused', 'cancelled', 'finished')),
  policy             TEXT NOT NULL,
  priority           INTEGER NOT NULL DEFAULT 0,
  budget_flops       REAL NOT NULL DEFAULT 0,
  spent_flops        REAL NOT NULL DEFAULT 0,
  limit_seconds      INTEGER NOT NULL DEFAULT 0,
  limit_memory_bytes INTEGER NOT NULL DEFAULT 0,
  limit_threads      INTEGER NOT NULL DEFAULT 0,
  submitted_unix_ms  INTEGER NOT NULL,
  finished_unix_ms   INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX sweeps_by_request ON sweeps (request_uuid);

CREATE TABLE runs (
  run_id           INTEGER PRIMARY KEY,
  identity         TEXT NOT NULL UNIQUE,
  kind             TEXT NOT NULL CHECK (kind IN ('prepare', 'pretrain', 'finetune')),
  trainer          TEXT NOT NULL,
  run_json         TEXT NOT NULL,
  costs_json       TEXT NOT NULL,
  training_flops   REAL NOT NULL DEFAULT 0,
  steps            INTEGER NOT NULL DEFAULT 0,
  memory_bytes     INTEGER NOT NULL DEFAULT 0,
  state            TEXT NOT NULL CHECK (state IN ('pending', 'running', 'done', 'failed', 'diverged')),
  generation       INTEGER NOT NULL DEFAULT 0,
  crashes          INTEGER NOT NULL DEFAULT 0,
  out_of_memory    INTEGER NOT NULL DEFAULT 0,
  preemptions      INTEGER NOT NULL DEFAULT 0,
  micro_batch      INTEGER NOT NULL DEFAULT 0,
  precision_asked  TEXT NOT NULL DEFAULT 'auto',
  precision        TEXT NOT NULL DEFAULT '',
  checkpoint_step  INTEGER NOT NULL DEFAULT 0,
  accepted_attempt INTEGER NOT NULL DEFAULT 0,
  keeps_outputs    INTEGER NOT NULL DEFAULT 0,
  error            TEXT NOT NULL DEFAULT '',
  created_unix_ms  INTEGER NOT NULL,
  started_unix_ms  INTEGER NOT NULL DEFAULT 0,
  finished_unix_ms INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE run_parents (
  run_id     INTEGER NOT NULL REFERENCES runs (run_id),
  parent_id  INTEGER NOT NULL REFERENCES runs (run_id),
  input_name TEXT NOT NULL,
  PRIMARY KEY (run_id, parent_id, input_name)
) WITHOUT ROWID;
CREATE INDEX run_parents_by_parent ON run_parents (parent_id);

CREATE TABLE run_files (
  run_id   INTEGER NOT NULL REFERENCES runs (run_id),
  role     TEXT NOT NULL,
  name     TEXT NOT NULL,
  bytes    INTEGER NOT NULL,
  sha256   TEXT NOT NULL,
  path     TEXT NOT NULL DEFAULT '',
  PRIMARY KEY (run_id, role, name, sha256)
) WITHOUT ROWID;
CREATE INDEX run_files_by_sha256 ON run_files (sha256);

CREATE TABLE cells (
  sweep_id     INTEGER NOT NULL REFERENCES sweeps (sweep_id),
  name         TEXT NOT NULL,
  run_id       INTEGER NOT NULL REFERENCES runs (run_id),
  position     INTEGER NOT NULL,
  kind         TEXT NOT NULL,
  architecture TEXT NOT NULL DEFAULT '',
  size         TEXT NOT NULL DEFAULT '',
  seed         INTEGER NOT NULL DEFAULT 0,
  wanted       INTEGER NOT NULL DEFAULT 1,
  tags_json    TEXT NOT NULL DEFAULT '{}',
  PRIMARY KEY (sweep_id, name)
) WITHOUT ROWID;
CREATE INDEX cells_by_run ON cells (run_id, sweep_id);
CREATE INDEX cells_by_position ON cells (sweep_id, position);

CREATE TABLE workers (
  worker_id           INTEGER PRIMARY KEY,
  worker_uuid         TEXT NOT NULL UNIQUE,
  name                TEXT NOT NULL,
  host                TEXT NOT NULL DEFAULT '',
  state               TEXT NOT NULL CHECK (state IN ('connected', 'draining', 'lost', 'left')),
  slots               INTEGER NOT NULL,
  threads_per_slot    INTEGER NOT NULL DEFAULT 0,
  memory_bytes        INTEGER NOT NULL DEFAULT 0,
  devices_json        TEXT NOT NULL DEFAULT '[]',
  trainers_json       TEXT NOT NULL DEFAULT '[]',
  version             TEXT NOT NULL DEFAULT '',
  provenance_json     TEXT NOT NULL DEFAULT '{}',
  registered_unix_ms  INTEGER NOT NULL,
  last_seen_unix_ms   INTEGER NOT NULL
);

CREATE TABLE attempts (
  attempt_id      INTEGER PRIMARY KEY,
  run_id          INTEGER NOT NULL REFERENCES runs (run_id),
  generation      INTEGER NOT NULL,
  worker_id       INTEGER NOT NULL REFERENCES workers (worker_id),
  sweep_id        INTEGER NOT NULL REFERENCES sweeps (sweep_id),
  outcome         TEXT NOT NULL,
  accepted        INTEGER NOT NULL DEFAULT 0,
  stop_requested  INTEGER NOT NULL DEFAULT 0,
  cancelled       INTEGER NOT NULL DEFAULT 0,
  exit_code       INTEGER NOT NULL DEFAULT 0,
  signal          INTEGER NOT NULL DEFAULT 0,
  message         TEXT NOT NULL DEFAULT '',
  first_step      INTEGER NOT NULL DEFAULT 0,
  last_step       INTEGER NOT NULL DEFAULT 0,
  device_seconds  REAL NOT NULL DEFAULT 0,
  provenance_json TEXT NOT NULL DEFAULT '{}',
  started_unix_ms INTEGER NOT NULL,
  ended_unix_ms   INTEGER NOT NULL DEFAULT 0,
  UNIQUE (run_id, generation)
);
-- The lease itself: at most one live attempt of a run, held by the database as well.
CREATE UNIQUE INDEX attempts_live ON attempts (run_id) WHERE outcome = 'live';

CREATE TABLE results (
  run_id       INTEGER PRIMARY KEY REFERENCES runs (run_id),
  attempt_id   INTEGER NOT NULL REFERENCES attempts (attempt_id),
  event        INTEGER NOT NULL,
  metrics_json TEXT NOT NULL DEFAULT '{}',
  scores_json  TEXT NOT NULL DEFAULT '[]',
  report_json  TEXT NOT NULL DEFAULT '{}'
);

CREATE TABLE outputs (
  run_id     INTEGER NOT NULL REFERENCES runs (run_id),
  name       TEXT NOT NULL,
  path       TEXT NOT NULL,
  sha256     TEXT NOT NULL,
  bytes      INTEGER NOT NULL,
  PRIMARY KEY (run_id, name, path)
) WITHOUT ROWID;
CREATE INDEX outputs_by_sha256 ON outputs (sha256);

CREATE TABLE checkpoint_files (
  run_id     INTEGER NOT NULL REFERENCES runs (run_id),
  name       TEXT NOT NULL,
  path       TEXT NOT NULL,
  sha256     TEXT NOT NULL,
  bytes      INTEGER NOT NULL,
  PRIMARY KEY (run_id, name, path)
) WITHOUT ROWID;
CREATE INDEX checkpoint_files_by_sha256 ON checkpoint_files (sha256);

CREATE TABLE metrics (
  attempt_id INTEGER NOT NULL REFERENCES attempts (attempt_id),
  series     TEXT NOT NULL,
  sequence   INTEGER NOT NULL,
  first_step INTEGER NOT NULL,
  points     INTEGER NOT NULL,
  data       BLOB NOT NULL,
  PRIMARY KEY (attempt_id, series, sequence)
) WITHOUT ROWID;

CREATE TABLE logs (
  attempt_id INTEGER NOT NULL REFERENCES attempts (attempt_id),
  stream     TEXT NOT NULL,
  offset     INTEGER NOT NULL,
  data       BLOB NOT NULL,
  PRIMARY KEY (attempt_id, stream, offset)
) WITHOUT ROWID;

CREATE TABLE events (
  event    INTEGER PRIMARY KEY,
  sweep_id INTEGER NOT NULL,
  run_id   INTEGER NOT NULL DEFAULT 0,
  unix_ms  INTEGER NOT NULL
);
CREATE INDEX events_by_sweep ON events (sweep_id, event);

-- What analysis reads: one row a pretraining cell, and one row a score of its fine-tuning in the same sweep.
CREATE VIEW pretrain_cells AS
  SELECT s.name AS sweep, c.name AS cell, c.architecture, c.size, c.seed, c.tags_json, c.sweep_id, c.run_id,
         r.identity, r.state, r.error, r.precision, r.costs_json, r.run_json, r.trainer,
         res.metrics_json, res.report_json, res.event
  FROM cells c
  JOIN sweeps s ON s.sweep_id = c.sweep_id AND s.state <> 'expanding'
  JOIN runs r ON r.run_id = c.run_id
  LEFT JOIN results res ON res.run_id = c.run_id
  WHERE c.kind = 'pretrain' AND c.wanted = 1;

CREATE VIEW finetune_cells AS
  SELECT p.sweep_id, p.cell AS pretrain_cell, p.run_id AS pretrain_run_id, c.name AS cell, c.run_id,
         r.identity, r.state, r.error, r.precision, r.costs_json,
         res.metrics_json, res.scores_json, res.report_json, res.event
  FROM pretrain_cells p
  JOIN run_parents rp ON rp.parent_id = p.run_id
  JOIN cells c ON c.run_id = rp.run_id AND c.sweep_id = p.sweep_id AND c.kind = 'finetune' AND c.wanted = 1
  JOIN runs r ON r.run_id = c.run_id
  LEFT JOIN results res ON res.run_id = c.run_id;
