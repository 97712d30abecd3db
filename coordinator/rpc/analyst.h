#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "allometry/v1/analysis_service.pb.h"
#include "common/result.h"
#include "records/records.h"
#include "records/sqlite.h"
#include "records/table_cache.h"

namespace allometry::coordinator {

// The answers of AnalysisService from a database file: what the service sends, and what the command line prints
// offline. Thread-safe. Errors are those of records::LoadSqlite and of the analysis.
class Analyst {
 public:
  explicit Analyst(std::filesystem::path database) : database_(std::move(database)) {}

  common::Result<v1::SlopesResponse> Slopes(const v1::SlopesRequest& request) const;
  common::Result<v1::ParetoResponse> Pareto(const v1::ParetoRequest& request) const;
  common::Result<v1::ScoresResponse> Scores(const v1::ScoresRequest& request) const;
  common::Result<v1::CrossoversResponse> Crossovers(const v1::CrossoversRequest& request) const;
  common::Result<v1::RanksResponse> Ranks(const v1::RanksRequest& request) const;
  // law_answers.cc
  common::Result<v1::FitResponse> Fit(const v1::FitRequest& request) const;
  common::Result<v1::BacktestResponse> Backtest(const v1::BacktestRequest& request) const;
  // suggest_answer.cc
  common::Result<v1::SuggestResponse> Suggest(const v1::SuggestRequest& request) const;
  common::Result<v1::ReportResponse> Report(const v1::ReportRequest& request) const;

  // Differs whenever an answer may (records/sqlite.h).
  common::Result<std::string> DataVersion() const { return records::DataVersion(database_); }

 private:
  using SharedTable = std::shared_ptr<const records::Table>;
  template <typename Strings>
  common::Result<SharedTable> Load(const Strings& sweeps) const {
    return tables_.Load(database_, {sweeps.begin(), sweeps.end()});
  }
  common::Result<std::string> NextSweep(const records::Table& table, const v1::SuggestResponse& suggested) const;

  std::filesystem::path database_;
  mutable records::TableCache tables_;
};

}  // namespace allometry::coordinator
