#pragma once

#include <string>
#include <utility>
#include <variant>

namespace allometry::common {

// The closed list of expected failures. Each maps one to one onto a gRPC code, an HTTP code and an exit code
// (docs/failure.md).
enum class ErrorCode {
  kInvalidArgument,     // the request or file is wrong; trying again unchanged cannot help
  kNotFound,            // the named thing does not exist
  kAlreadyExists,       // the name is taken by different content
  kFailedPrecondition,  // the state does not allow it now (stale lease, missing blob, newer database, ...)
  kOutOfRange,          // an expired watch token or page key: list again
  kResourceExhausted,   // disk full, queue full, budget used up
  kUnavailable,         // the other side cannot be reached now; trying again may help
  kPermissionDenied,    // missing or wrong token, unreadable path
  kAborted,             // the operation lost a race (Finish against Cancel)
  kDataLoss,            // bytes do not have the hash they should have
  kInternal,            // a broken invariant
};

const char* ErrorCodeName(ErrorCode code);

// Exit code of a command-line program that ends with this error: 2 invalid argument, 3 not found, 4 already exists,
// 5 failed precondition, 6 out of range, 7 resource exhausted, 8 unavailable, 9 permission denied, 10 aborted,
// 11 data loss, 70 internal. 0 is success, 1 "finished, with failed runs".
int ExitCodeOf(ErrorCode code);

// What went wrong: `message` says what, where and what would be right, as one sentence a user can act on.
struct Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;
};


// A value or an Error. For what can be expected to fail; broken invariants throw instead.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::move(value)) {}  // NOLINT: implicit on purpose, so that `return value;` works
  Result(Error error) : state_(std::move(error)) {}  // NOLINT

  bool ok() const { return std::holds_alternative<T>(state_); }
  explicit operator bool() const { return ok(); }

  const T& value() const& { return std::get<T>(state_); }
  T& value() & { return std::get<T>(state_); }
  T&& value() && { return std::get<T>(std::move(state_)); }
  const T& operator*() const& { return value(); }
  T& operator*() & { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  const T* operator->() const { return &value(); }
  T* operator->() { return &value(); }

  const Error& error() const { return std::get<Error>(state_); }

 private:
  std::variant<T, Error> state_;
};

// Success without a value, or an Error.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Error error) : error_(std::move(error)), ok_(false) {}  // NOLINT

  bool ok() const { return ok_; }
  explicit operator bool() const { return ok_; }
  const Error& error() const { return error_; }

 private:
  Error error_;
  bool ok_ = true;
};

inline Status Ok() { return Status(); }

inline Error InvalidArgument(std::string m) { return {ErrorCode::kInvalidArgument, std::move(m)}; }
inline Error NotFound(std::string m) { return {ErrorCode::kNotFound, std::move(m)}; }
inline Error AlreadyExists(std::string m) { return {ErrorCode::kAlreadyExists, std::move(m)}; }
inline Error FailedPrecondition(std::string m) { return {ErrorCode::kFailedPrecondition, std::move(m)}; }
inline Error OutOfRange(std::string m) { return {ErrorCode::kOutOfRange, std::move(m)}; }
inline Error ResourceExhausted(std::string m) { return {ErrorCode::kResourceExhausted, std::move(m)}; }
inline Error Unavailable(std::string m) { return {ErrorCode::kUnavailable, std::move(m)}; }
inline Error PermissionDenied(std::string m) { return {ErrorCode::kPermissionDenied, std::move(m)}; }
inline Error Aborted(std::string m) { return {ErrorCode::kAborted, std::move(m)}; }
inline Error DataLoss(std::string m) { return {ErrorCode::kDataLoss, std::move(m)}; }
inline Error Internal(std::string m) { return {ErrorCode::kInternal, std::move(m)}; }

}  // namespace allometry::common

// Evaluates a Status or Result expression and returns its error from the enclosing function, if there is one.
#define ALLO_RETURN_IF_ERROR(expr)                 \
  do {                                             \
    if (auto allo_status_ = (expr); !allo_status_) \
      return allo_status_.error();                 \
  } while (false)

#define ALLO_CONCAT_INNER(a, b) a##b
#define ALLO_CONCAT(a, b) ALLO_CONCAT_INNER(a, b)
// ALLO_ASSIGN_OR_RETURN(auto x, F()): declares x from F()'s value, or returns its error.
#define ALLO_ASSIGN_OR_RETURN(lhs, expr) ALLO_ASSIGN_OR_RETURN_IMPL(ALLO_CONCAT(allo_result_, __LINE__), lhs, expr)
#define ALLO_ASSIGN_OR_RETURN_IMPL(result, lhs, expr) \
  auto result = (expr);                               \
  if (!result) return result.error();                 \
  lhs = std::move(result).value()
