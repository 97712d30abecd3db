#pragma once

namespace allometry::trainer {

// `allo-trainer data <verb> ...`; argv[0] is "data". Verbs: `show DIR` prints a prepared data set's sizes, a sample of
// its text, one span-corrupted example as text and one example of each task. Returns the process's exit code.
int DataMain(int argc, char** argv);

}  // namespace allometry::trainer
