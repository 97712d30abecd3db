-- The work directory of a worker: who registers with it holds its lock, so the worker that had it before is gone.
ALTER TABLE workers ADD COLUMN directory_uuid TEXT NOT NULL DEFAULT '';
