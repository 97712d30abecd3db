-- 1: the models of every cell are kept, not only those that fine-tuning starts from. Of a sweep, since it does not change
-- what a run is.
ALTER TABLE sweeps ADD COLUMN keep_models INTEGER NOT NULL DEFAULT 0;
