-- Runs that share a GPU. `slots_per_gpu`: so many like this one at once. `gpu_whole_bytes`, `gpu_divided_bytes`: the least
-- that a GPU must hold of a rank, at a micro-batch of one sequence, and what of it ranks divide among them.
ALTER TABLE runs ADD COLUMN slots_per_gpu INTEGER NOT NULL DEFAULT 1;
ALTER TABLE runs ADD COLUMN gpu_whole_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN gpu_divided_bytes INTEGER NOT NULL DEFAULT 0;

-- Which of the worker's devices a rank has, -1 where it has none; how many sixteenths of it are the rank's.
ALTER TABLE placements ADD COLUMN device INTEGER NOT NULL DEFAULT -1;
ALTER TABLE placements ADD COLUMN parts INTEGER NOT NULL DEFAULT 16;

-- Of each of the worker's devices, in their order; 0 = not known.
ALTER TABLE workers ADD COLUMN device_memory_json TEXT NOT NULL DEFAULT '[]';

-- The worker protocol that it registered with: one of before an upgrade has to register again.
ALTER TABLE workers ADD COLUMN protocol INTEGER NOT NULL DEFAULT 2;
