#include "cli/verb.h"

#include <algorithm>
#include <iostream>
#include <vector>

namespace allometry::cli {
namespace {

struct Registered {
  int order;
  void (*declare)(CLI::App& program);
};

std::vector<Registered>& Verbs() {
  static std::vector<Registered> verbs;
  return verbs;
}

}  // namespace

VerbRegistration::VerbRegistration(int order, void (*declare)(CLI::App& program)) {
  Verbs().push_back({order, declare});
}

void DeclareVerbs(CLI::App& program) {
  std::ranges::stable_sort(Verbs(), {}, &Registered::order);
  for (const Registered& verb : Verbs()) verb.declare(program);
}

void OnRun(CLI::App* verb, std::function<int()> action) {
  verb->callback([action = std::move(action)] {
    if (const int code = action(); code != kExitOk) throw CLI::RuntimeError(code);
  });
}

int Fail(const common::Error& error) {
  std::cerr << "allo: " << error.message << '\n';
  return common::ExitCodeOf(error.code);
}

}  // namespace allometry::cli
