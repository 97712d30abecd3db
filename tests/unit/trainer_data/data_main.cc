// `allo-trainer data …` without the rest of allo-trainer: a process that tests may kill, and that needs no LibTorch.
#include <cstdio>

#include "worker/trainer/data/data_tools.h"

int main(int argc, char** argv) {
  const int code = allometry::trainer::DataMain(argc, argv);
  std::fflush(nullptr);
  return code;
}
