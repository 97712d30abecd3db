#pragma once

namespace allometry::trainer {

// `allo-trainer data <verb> ...`; argv[0] is "data". Verbs: `build` makes a data set from raw text, `tokenizer`
// trains a SentencePiece model, `show DIR` prints a data set's sizes, a sample of its text, one span-corrupted example
// as text and one example of each task. Returns the process's exit code (common/result.h), 130 after a signal.
int DataMain(int argc, char** argv);

}  // namespace allometry::trainer
