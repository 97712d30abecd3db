#include "report/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "analysis/crossover.h"
#include "analysis/laws.h"
#include "analysis/pareto.h"
#include "analysis/rank.h"
#include "analysis/score_table.h"
#include "analysis/tables.h"
#include "tests/unit/report/made_up_study.h"

namespace allometry::report {
namespace {

using common::Json;
using common::TableValue;
using ::testing::Contains;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

// Few draws: what the report shows is compared with the analysis asked for the same.
ReportRequest Quick() { return {.draws = 200, .replicates = 50}; }

Report ReportOf(const records::Table& table, const std::vector<records::Curve>& curves = {},
                const ReportRequest& request = Quick()) {
  return BuildReport(table, curves, request).value();
}

const Section& SectionNamed(const Report& report, const std::string& name) {
  return *std::ranges::find(report.sections, name, &Section::name);
}

std::vector<const Figure*> Figures(const Report& report) {
  std::vector<const Figure*> figures;
  for (const Section& section : report.sections)
    for (const Figure& figure : section.figures) figures.push_back(&figure);
  return figures;
}

std::vector<std::string> FigureNames(const Report& report) {
  std::vector<std::string> names;
  for (const Figure* figure : Figures(report)) names.push_back(figure->name);
  return names;
}

const Figure& FigureNamed(const Report& report, const std::string& name) {
  for (const Figure* figure : Figures(report))
    if (figure->name == name) return *figure;
  throw std::out_of_range(name);
}

const common::Table& TableNamed(const Report& report, const std::string& name) {
  for (const Section& section : report.sections)
    for (const TitledTable& table : section.tables)
      if (table.table.name == name) return table.table;
  throw std::out_of_range(name);
}

TableValue At(const common::Table& table, size_t row, const std::string& column) {
  const auto found = std::ranges::find(table.columns, column, &common::Column::name);
  if (found == table.columns.end()) throw std::out_of_range(column);
  return table.rows.at(row)[static_cast<size_t>(found - table.columns.begin())];
}

double NumberAt(const common::Table& table, size_t row, const std::string& column) {
  return std::get<double>(At(table, row, column));
}

// Every field that a view reads.
void CollectFields(const Json& json, std::set<std::string>* fields) {
  if (json.is_object() && json.contains("field")) fields->insert(json["field"].get<std::string>());
  for (const Json& part : json)
    if (part.is_structured()) CollectFields(part, fields);
}

void ExpectSoundFigures(const Report& report) {
  std::set<std::string> names;
  for (const Figure* figure : Figures(report)) {
    EXPECT_TRUE(names.insert(figure->name).second) << figure->name << " is there twice";
    EXPECT_FALSE(figure->title.empty() || figure->caption.empty()) << figure->name;
    EXPECT_FALSE(figure->data.rows.empty()) << figure->name << " is empty";
    std::set<std::string> columns, fields;
    for (const common::Column& column : figure->data.columns) columns.insert(column.name);
    const Json specification = Specification(*figure);
    CollectFields(figure->view, &fields);
    for (const std::string& field : fields) EXPECT_THAT(columns, Contains(field)) << figure->name;
    EXPECT_EQ(specification["data"]["values"].size(), figure->data.rows.size());
    EXPECT_EQ(specification["$schema"], "https://vega.github.io/schema/vega-lite/v5.json");
    EXPECT_TRUE(specification.contains("layer") || specification.contains("facet") || specification.contains("mark"));
  }
}

void ExpectSame(const Report& a, const Report& b) { EXPECT_EQ(ToJson(a).dump(), ToJson(b).dump()); }

class StudyReport : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    table_ = new records::Table(MakeTable({}));
    (*table_)[5].state = records::CellState::kDiverged;
    report_ = new Report(ReportOf(*table_, MakeCurves(*table_)));
  }
  static void TearDownTestSuite() {
    delete table_;
    delete report_;
  }
  static records::Table* table_;
  static Report* report_;
};
records::Table* StudyReport::table_ = nullptr;
Report* StudyReport::report_ = nullptr;

TEST_F(StudyReport, HasTheTablesAndFiguresOfTheStudy) {
  EXPECT_THAT(FigureNames(*report_),
              ElementsAre("frontier_upstream", "frontier_downstream", "scaling_upstream", "scaling_downstream",
                          "training_curves", "validation_curves", "ranks_upstream", "ranks_downstream"));
  std::vector<std::string> tables;
  for (const Section& section : report_->sections)
    for (const TitledTable& table : section.tables) tables.push_back(table.table.name);
  EXPECT_THAT(tables, ElementsAre("frontier_upstream_cells", "frontier_downstream_cells", "models", "scores_averages",
                                  "scores_glue", "scores_superglue", "slopes", "comparisons", "slope_intervals",
                                  "agreement_upstream", "agreement_downstream", "crossovers_upstream",
                                  "crossovers_downstream", "laws", "sweeps", "left_out"));
  ExpectSoundFigures(*report_);
}

TEST_F(StudyReport, Table1HasMeansAndSpreadsOverTheSeedsThatTakePart) {
  const common::Table& models = TableNamed(*report_, "models");
  ASSERT_THAT(models.rows, SizeIs(16));
  EXPECT_EQ(std::get<std::string>(At(models, 1, "size")), "micro");
  EXPECT_EQ(std::get<int64_t>(At(models, 1, "seeds")), 2) << "one of three has diverged";
  const double first = std::exp((*table_)[3].metrics.at("validation_loss"));
  const double second = std::exp((*table_)[4].metrics.at("validation_loss"));
  EXPECT_NEAR(NumberAt(models, 1, "perplexity"), (first + second) / 2, 1e-9);
  EXPECT_NEAR(NumberAt(models, 1, "perplexity_sd"), std::abs(first - second) / std::sqrt(2), 1e-9);
  EXPECT_NEAR(NumberAt(models, 1, "steps_per_second"), 2000.0 / 120, 1e-9);
  EXPECT_EQ(NumberAt(models, 1, "parameters"), (*table_)[3].metrics.at("parameters"));
  EXPECT_EQ(NumberAt(models, 1, "flops"), (*table_)[3].metrics.at("forward_flops"));
  EXPECT_EQ(std::get<std::string>(At(models, 0, "flags")), "at chance");
  EXPECT_EQ(std::get<std::string>(At(models, 1, "flags")), "");
}

TEST_F(StudyReport, Table2IsThatOfTheAnalysis) {
  const auto slopes = analysis::Slopes(*table_, {.baseline = "transformer"}).value();
  EXPECT_EQ(TableNamed(*report_, "slopes").rows, analysis::ToTable(slopes).rows);
  EXPECT_EQ(TableNamed(*report_, "comparisons").rows, analysis::ComparisonTable(slopes).rows);
  const common::Table& intervals = TableNamed(*report_, "slope_intervals");
  ASSERT_THAT(intervals.rows, SizeIs(4 * 7));
  EXPECT_EQ(NumberAt(intervals, 0, "alpha"), *slopes.architectures[0].slopes[0].estimate.alpha);
  EXPECT_THAT(std::get<std::string>(At(intervals, 0, "flags")), HasSubstr("pooled across unequal seeds"));
}

TEST_F(StudyReport, Figure1IsTheFrontierOfTheAnalysis) {
  const auto pareto = analysis::Pareto(*table_, {.quality = "downstream", .draws = 200}).value();
  const common::Table& data = FigureNamed(*report_, "frontier_downstream").data;
  ASSERT_THAT(data.rows, SizeIs(pareto.points.size()));
  for (size_t i = 0; i < data.rows.size(); ++i) {
    EXPECT_EQ(NumberAt(data, i, "flops"), pareto.points[i].cost());
    EXPECT_EQ(NumberAt(data, i, "quality"), pareto.points[i].quality);
    EXPECT_EQ(NumberAt(data, i, "probability"), pareto.points[i].probability);
    EXPECT_EQ(std::get<bool>(At(data, i, "on_frontier")), pareto.points[i].on_frontier);
    EXPECT_EQ(std::get<bool>(At(data, i, "at_chance")), pareto.points[i].at_chance);
  }
  EXPECT_THAT(FigureNamed(*report_, "frontier_downstream").caption, HasSubstr("Hollow"));
  EXPECT_THAT(FigureNamed(*report_, "frontier_upstream").caption, Not(HasSubstr("Hollow")));
}

TEST_F(StudyReport, Figure2HasTheSizeMeansAndTheLineOfTheSlope) {
  const auto slopes = analysis::Slopes(*table_, {}).value();
  const analysis::Slope& slope = *FindSlope(slopes.architectures[1], analysis::Axis::kFlops, analysis::Axis::kUpstream);
  const common::Table& data = FigureNamed(*report_, "scaling_upstream").data;
  std::vector<size_t> sizes, lines;
  for (size_t i = 0; i < data.rows.size(); ++i)
    if (At(data, i, "architecture") == TableValue("glu"))
      (At(data, i, "kind") == TableValue("line") ? lines : sizes).push_back(i);
  ASSERT_THAT(sizes, SizeIs(4));
  ASSERT_THAT(lines, SizeIs(2));
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_NEAR(std::log10(NumberAt(data, sizes[i], "flops")), slope.points[i].x, 1e-12);
    EXPECT_EQ(NumberAt(data, sizes[i], "quality"), slope.points[i].y);
    EXPECT_NEAR(NumberAt(data, sizes[i], "high") - NumberAt(data, sizes[i], "low"), 2 * *slope.points[i].y_sd, 1e-12);
  }
  const double decades = std::log10(NumberAt(data, lines[1], "flops") / NumberAt(data, lines[0], "flops"));
  const double rise = NumberAt(data, lines[1], "quality") - NumberAt(data, lines[0], "quality");
  EXPECT_NEAR(rise / decades, *slope.estimate.alpha, 1e-9);
}

TEST_F(StudyReport, RanksCrossoversScoresAndLawsAreThoseOfTheAnalysis) {
  const auto ranks = analysis::Rank(*table_, {.draws = 200}).value();
  const common::Table& data = FigureNamed(*report_, "ranks_upstream").data;
  EXPECT_EQ(std::get<std::string>(At(data, 0, "architecture")), ranks.sizes[0].ranking[0].architecture);
  EXPECT_EQ(NumberAt(data, 0, "probability_best"), ranks.sizes[0].ranking[0].probability_best);
  const common::Table& agreement = TableNamed(*report_, "agreement_upstream");
  ASSERT_THAT(agreement.rows, SizeIs(4)) << "neighbours, and the first with the last";
  EXPECT_EQ(NumberAt(agreement, 0, "tau"), ranks.agreements[0].tau);

  const auto crossovers = analysis::Crossovers(*table_, {}).value();
  const common::Table& shown = TableNamed(*report_, "crossovers_upstream");
  ASSERT_THAT(shown.rows, SizeIs(6));
  for (size_t i = 0; i < 6; ++i) EXPECT_EQ(At(shown, i, "verdict"), TableValue(crossovers.crossovers[i].verdict));

  const auto scores = analysis::Scores(*table_, {.mean_over_seeds = true}).value();
  char text[32];
  std::snprintf(text, sizeof text, "%.1f ±%.1f", 100 * *scores.rows[3].scores[0].value,
                100 * *scores.rows[3].scores[0].spread);
  EXPECT_EQ(At(TableNamed(*report_, "scores_glue"), 3, scores.columns[0].name), TableValue(text));

  const common::Table& laws = TableNamed(*report_, "laws");
  ASSERT_THAT(laws.rows, SizeIs(8)) << "two methods each";
  EXPECT_EQ(At(laws, 0, "status"), TableValue("converged"));
}

TEST_F(StudyReport, TellsWhatIsLeftOutAndByWhichConventions) {
  EXPECT_THAT(std::get<std::string>(At(TableNamed(*report_, "left_out"), 0, "reason")), HasSubstr("diverged"));
  EXPECT_EQ(report_->provenance["cells"]["used"], 47);
  EXPECT_EQ(report_->provenance["flops"], "forward");
  EXPECT_EQ(report_->provenance["baseline"], "transformer");
  EXPECT_THAT(SectionNamed(*report_, "provenance").text, Contains(HasSubstr("semilog")));
  EXPECT_THAT(SectionNamed(*report_, "depth_and_width").text, Each(HasSubstr("alone")));
}

TEST_F(StudyReport, ComesBackFromJson) {
  const Report back = ReportFromJson(Json::parse(ToJson(*report_).dump())).value();
  ExpectSame(*report_, back);
  for (size_t f = 0; f < Figures(back).size(); ++f) {
    const common::Table &before = Figures(*report_)[f]->data, &after = Figures(back)[f]->data;
    EXPECT_EQ(common::Render(before, common::OutputFormat::kCsv), common::Render(after, common::OutputFormat::kCsv));
  }
}

TEST(Report, CsvAndSpecificationOfAFigureHoldTheSameRows) {
  const Report report = ReportOf(MakeTable({.sizes = 3, .seeds = 2}));
  for (const Figure* figure : Figures(report)) {
    const Json values = Specification(*figure)["data"]["values"];
    ASSERT_EQ(values.size(), figure->data.rows.size());
    for (size_t r = 0; r < values.size(); ++r)
      for (size_t c = 0; c < figure->data.columns.size(); ++c) {
        const TableValue& value = figure->data.rows[r][c];
        const Json& json = values[r][figure->data.columns[c].name];
        if (const auto* number = std::get_if<double>(&value)) {
          EXPECT_EQ(json, *number);
        } else if (const auto* text = std::get_if<std::string>(&value)) {
          EXPECT_EQ(json, *text);
        } else {
          EXPECT_EQ(json.is_null(), std::holds_alternative<std::monostate>(value));
        }
      }
  }
}

TEST(Report, DepthAndWidthAreDrawnWhereOneAloneChanges) {
  const Report report = ReportOf(MakeDepthAndWidth());
  ExpectSoundFigures(report);
  EXPECT_THAT(FigureNames(report), Contains("depth_upstream"));
  EXPECT_THAT(FigureNames(report), Contains("width_downstream"));
  const common::Table& data = FigureNamed(report, "depth_upstream").data;
  EXPECT_THAT(data.rows, SizeIs(100));
  EXPECT_EQ(std::get<int64_t>(At(data, 0, "layers")), 2);
  EXPECT_THAT(SectionNamed(report, "depth_and_width").text, IsEmpty());
}

TEST(Report, SizesThatGrowInEveryDimensionAreNoDepthOrWidth) {
  records::Table table = MakeTable({.seeds = 1});
  for (records::Record& cell : table) {
    const double scale = std::sqrt(cell.metrics["parameters"]);
    for (const char* name : {"encoder_layers", "d_model", "d_ff"}) cell.metrics[name] = scale;
  }
  EXPECT_THAT(SectionNamed(ReportOf(table), "depth_and_width").text, SizeIs(2));
}

TEST(Report, WithoutScoresSaysSo) {
  const Report report = ReportOf(MakeTable({.scores = false}));
  EXPECT_THAT(FigureNames(report), ElementsAre("frontier_upstream", "scaling_upstream", "ranks_upstream"));
  EXPECT_THAT(SectionNamed(report, "scores").text, Contains(HasSubstr("no cell has any")));
  EXPECT_THAT(SectionNamed(report, "frontiers").text, Contains(HasSubstr("no cell has scores")));
  EXPECT_THAT(SectionNamed(report, "learning_curves").text, SizeIs(2));
  ExpectSoundFigures(report);
}

TEST(Report, WithoutReplicatesSaysWhyProbabilitiesAreMissing) {
  const Report report = ReportOf(MakeTable({.seeds = 1}));
  EXPECT_THAT(FigureNamed(report, "frontier_upstream").caption, HasSubstr("No probabilities: "));
  EXPECT_THAT(FigureNamed(report, "ranks_upstream").caption, HasSubstr("No probabilities: "));
  EXPECT_EQ(At(TableNamed(report, "models"), 0, "perplexity_sd"), TableValue());
  EXPECT_THAT(std::get<std::string>(At(TableNamed(report, "models"), 0, "flags")), HasSubstr("one seed"));
  EXPECT_THAT(std::get<std::string>(At(TableNamed(report, "slope_intervals"), 0, "flags")), HasSubstr("one seed"));
}

TEST(Report, OfOneCellSaysWhyTheRestIsMissing) {
  const Report report = ReportOf(MakeTable({.architectures = {"glu"}, .sizes = 1, .seeds = 1}));
  ExpectSoundFigures(report);
  EXPECT_EQ(report.provenance["baseline"], "glu") << "the first architecture where there is no transformer";
  EXPECT_THAT(SectionNamed(report, "slopes").text, Contains(HasSubstr("nothing to compare glu with")));
  EXPECT_THAT(TableNamed(report, "slopes").notes, Contains(HasSubstr("a slope needs two sizes")));
  EXPECT_THAT(SectionNamed(report, "ranks").text, Contains(HasSubstr("no size has two architectures")));
  EXPECT_THAT(SectionNamed(report, "crossovers").text, Contains(HasSubstr("a crossover needs two architectures")));
  EXPECT_THAT(SectionNamed(report, "laws").text, Contains(HasSubstr("No fit of glu: ")));
}

TEST(Report, AFitThatIsNotCertifiedShowsNoParameters) {
  records::Table table = MakeTable({.architectures = {"glu"}, .sizes = 5, .noise = 0});
  for (records::Record& cell : table) cell.metrics["validation_loss"] = 3;  // alpha is whatever one likes
  const Report report = ReportOf(table);
  const common::Table& laws = TableNamed(report, "laws");
  bool refused = false;
  for (size_t row = 0; row < laws.rows.size(); ++row) {
    if (At(laws, row, "status") != TableValue("not converged")) continue;
    refused = true;
    for (const char* parameter : {"E", "A", "alpha"}) EXPECT_EQ(At(laws, row, parameter), TableValue());
  }
  EXPECT_TRUE(refused);
  EXPECT_THAT(laws.notes, Not(IsEmpty()));
}

TEST(Report, CurvesAreThinnedAndNameTheirCells) {
  const records::Table table = MakeTable({.seeds = 1});
  const Report report = ReportOf(table, MakeCurves(table, 20'000));
  const common::Table& data = FigureNamed(report, "training_curves").data;
  EXPECT_LE(data.rows.size(), 16 * kCurvePoints);
  EXPECT_GE(data.rows.size(), 16 * kCurvePoints / 2);
  EXPECT_EQ(At(data, 0, "cell"), TableValue("study/transformer-nano-s0"));
  std::vector<records::Curve> strangers = MakeCurves(table);
  for (records::Curve& curve : strangers) curve.sweep = "another";
  EXPECT_THAT(SectionNamed(ReportOf(table, strangers), "learning_curves").figures, IsEmpty());
}

TEST(Report, AFilterAndConventionsHoldForAllOfIt) {
  ReportRequest request = Quick();
  request.slopes.filter = "architecture=glu,architecture=lconv";
  request.slopes.exclude = {"glu-tiny-s0"};
  request.slopes.transform = analysis::Transform::kLoglog;
  request.slopes.flops = analysis::FlopConvention::kTraining;
  request.slopes.baseline = "lconv";
  const Report report = ReportOf(MakeTable({}), {}, request);
  EXPECT_EQ(report.provenance["cells"]["all"], 24);
  EXPECT_EQ(report.provenance["baseline"], "lconv");
  EXPECT_THAT(FigureNamed(report, "scaling_upstream").title, HasSubstr("training FLOPs"));
  EXPECT_THAT(FigureNamed(report, "scaling_upstream").view.dump(), HasSubstr("−ln of the validation loss"));
  EXPECT_EQ(At(TableNamed(report, "left_out"), 0, "cell"), TableValue("study/glu-tiny-s0"));
  ExpectSoundFigures(report);
}

TEST(Report, WrongRequestsAreErrors) {
  const records::Table table = MakeTable({.seeds = 1});
  const auto code = [&](const ReportRequest& request) { return BuildReport(table, {}, request).error().code; };
  EXPECT_EQ(code({.slopes = {.filter = "nonsense"}}), common::ErrorCode::kInvalidArgument);
  EXPECT_EQ(code({.slopes = {.confidence = 2}}), common::ErrorCode::kInvalidArgument);
  EXPECT_EQ(code({.slopes = {.baseline = "gpt"}}), common::ErrorCode::kNotFound);
  EXPECT_EQ(code({.slopes = {.exclude = {"gpt"}}}), common::ErrorCode::kNotFound);
  EXPECT_EQ(code({.slopes = {.tasks = {"chess"}}}), common::ErrorCode::kInvalidArgument);
  EXPECT_EQ(code({.draws = -1}), common::ErrorCode::kInvalidArgument);
  EXPECT_EQ(code({.replicates = -1}), common::ErrorCode::kInvalidArgument);
  EXPECT_EQ(BuildReport({}, {}, {}).error().code, common::ErrorCode::kFailedPrecondition);
}

TEST(Report, AThousandCellsAndAThousandArchitectures) {
  MadeUpStudy many{.architectures = {}, .sizes = 5, .seeds = 17};
  for (int i = 0; i < 12; ++i) many.architectures.push_back("arch" + std::to_string(i));
  const records::Table cells = MakeTable(many);
  ASSERT_GT(cells.size(), 1000u);
  ReportRequest request = Quick();
  request.replicates = 0;
  const Report report = ReportOf(cells, MakeCurves(cells, 100), request);
  ExpectSoundFigures(report);
  EXPECT_LE(FigureNamed(report, "training_curves").data.rows.size(), 31'000u);

  MadeUpStudy wide{.architectures = {}, .sizes = 1, .seeds = 1, .scores = false};
  for (int i = 0; i < 1000; ++i) wide.architectures.push_back("a" + std::to_string(i));
  const Report of_wide = ReportOf(MakeTable(wide), {}, request);
  ExpectSoundFigures(of_wide);
  EXPECT_THAT(SectionNamed(of_wide, "ranks").text, Contains(HasSubstr("56 architectures")));
  EXPECT_THAT(FigureNamed(of_wide, "scaling_upstream").caption, HasSubstr("The first 24 architectures only"));
}

TEST(ReportFromJson, TakesNothingElse) {
  const Json report = ToJson(ReportOf(MakeTable({.sizes = 2, .seeds = 1})));
  EXPECT_EQ(ReportFromJson(Json::object()).error().code, common::ErrorCode::kInvalidArgument);
  Json newer = report;
  newer["format"] = 2;
  EXPECT_THAT(ReportFromJson(newer).error().message, HasSubstr("format 2"));
  Json hostile = report;
  hostile["sections"][0]["figures"][0]["name"] = "../../etc/passwd";
  EXPECT_THAT(ReportFromJson(hostile).error().message, HasSubstr("is no name"));
  Json torn = report;
  torn["sections"][0]["tables"][0]["rows"][0].erase(0);
  EXPECT_FALSE(ReportFromJson(torn).ok());
}

}  // namespace
}  // namespace allometry::report
