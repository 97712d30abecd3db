-- Runs on several devices. `devices` 0: the fewest of 1, 2, 4, … up to `most_devices` that fit. `replicated_bytes`: the part
-- of `memory_bytes` that each rank needs whole.
ALTER TABLE runs ADD COLUMN devices INTEGER NOT NULL DEFAULT 1;
ALTER TABLE runs ADD COLUMN most_devices INTEGER NOT NULL DEFAULT 1;
ALTER TABLE runs ADD COLUMN replicated_bytes INTEGER NOT NULL DEFAULT 0;

-- Where the ranks of an attempt are; that of rank 0 stands in attempts.worker_id too.
CREATE TABLE placements (
  attempt_id INTEGER NOT NULL REFERENCES attempts (attempt_id),
  rank       INTEGER NOT NULL,
  worker_id  INTEGER NOT NULL REFERENCES workers (worker_id),
  finished   INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (attempt_id, rank)
) WITHOUT ROWID;
INSERT INTO placements (attempt_id, rank, worker_id) SELECT attempt_id, 0, worker_id FROM attempts;
