#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

#include "common/result.h"

namespace allometry::cli {

// A verb of the program registers itself from a static object in its own file; nothing else knows of it.
//   const VerbRegistration kPlan(20, DeclarePlan);
class VerbRegistration {
 public:
  // `declare` adds the verb to the program; `order` is its place in the help text.
  VerbRegistration(int order, void (*declare)(CLI::App& program));
};

void DeclareVerbs(CLI::App& program);

// What runs when the verb was named; its value is the exit code (common/result.h). Exceptions end the program with 70.
void OnRun(CLI::App* verb, std::function<int()> action);

// Prints "allo: <message>" to standard error; returns the exit code of the error.
int Fail(const common::Error& error);

inline constexpr int kExitOk = 0;
inline constexpr int kExitRunsFailed = 1;  // finished, but with failed, diverged or blocked cells
inline constexpr int kExitInterrupted = 130;

}  // namespace allometry::cli

// Declares `lhs` from a Result, or leaves the verb with the error's exit code.
#define ALLO_ASSIGN_OR_FAIL(lhs, expr) ALLO_ASSIGN_OR_FAIL_IMPL(ALLO_CONCAT(allo_result_, __LINE__), lhs, expr)
#define ALLO_ASSIGN_OR_FAIL_IMPL(result, lhs, expr)           \
  auto result = (expr);                                       \
  if (!result) return ::allometry::cli::Fail(result.error()); \
  lhs = std::move(result).value()
