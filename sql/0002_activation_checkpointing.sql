-- Of a sweep, since it changes what a run costs and not what it is.
ALTER TABLE sweeps ADD COLUMN activation_checkpointing INTEGER NOT NULL DEFAULT 0;
