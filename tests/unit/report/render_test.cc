#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <regex>

#include "common/files.h"
#include "report/html.h"
#include "report/latex.h"
#include "report/markdown.h"
#include "report/render_figures.h"
#include "tests/unit/report/made_up_study.h"

namespace allometry::report {
namespace {

using common::Json;
using ::testing::HasSubstr;
using ::testing::Not;
namespace fs = std::filesystem;

const char* const kHostile = "</script><img src=http://evil/x onerror=alert(1)>\"'&$_{}~^\\|";

Report SmallReport(const std::string& architecture = "glu") {
  MadeUpStudy study{.architectures = {"transformer", architecture}, .sizes = 3, .seeds = 2};
  return BuildReport(MakeTable(study), {}, {.title = architecture, .draws = 100, .replicates = 0}).value();
}

Drawings DrawingsOf(const Report& report) {
  Drawings drawings{.svg = {}, .javascript = "window.vegaEmbed = () => '</script>';"};
  for (const Section& section : report.sections)
    for (const Figure& figure : section.figures)
      drawings.svg[figure.name] =
          "<svg xmlns=\"http://www.w3.org/2000/svg\"><defs><clipPath id=\"clip0\"/></defs>"
          "<g clip-path=\"url(#clip0)\"/><use href=\"#clip0\"/></svg>";
  return drawings;
}

size_t Count(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

TEST(Html, LoadsNothingFromTheNetwork) {
  const Report report = SmallReport();
  const std::string html = ToHtml(report, DrawingsOf(report));
  // Whatever a browser would fetch: attributes, style sheets' imports and urls.
  for (const char* pattern : {R"((src|srcset|href|action|data|poster)\s*=\s*["']?\s*(https?:)?//)",
                              R"(url\(\s*["']?\s*(https?:)?//)", R"(@import)", R"(<link\b)", R"(<iframe\b)"})
    EXPECT_FALSE(std::regex_search(html, std::regex(pattern, std::regex::icase))) << pattern;
  EXPECT_THAT(html, HasSubstr("default-src 'none'"));
}

TEST(Html, ShowsEveryFigureAndTableAndKeepsTheDrawingsApart) {
  const Report report = SmallReport();
  const std::string html = ToHtml(report, DrawingsOf(report));
  size_t figures = 0;
  for (const Section& section : report.sections) {
    EXPECT_THAT(html, HasSubstr("href=\"#section-" + section.name + "\""));
    EXPECT_THAT(html, HasSubstr("id=\"section-" + section.name + "\""));
    for (const TitledTable& table : section.tables)
      EXPECT_THAT(html, HasSubstr("id=\"table-" + table.table.name + "\""));
    for (const Figure& figure : section.figures) {
      ++figures;
      EXPECT_THAT(html, HasSubstr("id=\"picture-" + figure.name + "\""));
      EXPECT_THAT(html, HasSubstr("url(#" + figure.name + "-clip0)"));
      EXPECT_THAT(html, HasSubstr("<use href=\"#" + figure.name + "-clip0\""));
    }
  }
  EXPECT_EQ(Count(html, "<svg"), figures);
  EXPECT_THAT(html, Not(HasSubstr("id=\"clip0\"")));
}

TEST(Html, TheSpecificationsReadBackFromThePage) {
  const Report report = SmallReport();
  const std::string html = ToHtml(report, DrawingsOf(report));
  const std::string opening = "<script type=\"application/json\" id=\"figures\">";
  const size_t begin = html.find(opening) + opening.size();
  const Json figures = Json::parse(html.substr(begin, html.find("</script>", begin) - begin));
  ASSERT_EQ(figures.size(), DrawingsOf(report).svg.size());
  EXPECT_EQ(figures[0]["specification"], Specification(report.sections[0].figures[0]));
}

TEST(Html, HostileNamesStayText) {
  const Report report = SmallReport(kHostile);
  const std::string html = ToHtml(report, DrawingsOf(report));
  EXPECT_THAT(html, Not(HasSubstr("<img")));
  EXPECT_EQ(Count(html, "</script>"), 3u) << "one each for the data, the library and the page's own";
  EXPECT_THAT(html, HasSubstr("&lt;/script&gt;&lt;img src=http://evil/x onerror=alert(1)&gt;&quot;"));
  EXPECT_THAT(html, HasSubstr("\\u003c/script>"));
}

TEST(Html, AMissingDrawingIsNoEmptyPicture) { EXPECT_THROW(ToHtml(SmallReport(), Drawings{}), std::out_of_range); }

TEST(Markdown, HasTablesAndShowsFiguresWhereTheyAre) {
  const Report report = SmallReport();
  const std::string text = ToMarkdown(report, "figures");
  EXPECT_THAT(text, HasSubstr("# glu\n"));
  EXPECT_THAT(text, HasSubstr("](figures/frontier_upstream.png)"));
  EXPECT_THAT(text, HasSubstr("| architecture | size | seeds |"));
  EXPECT_THAT(ToMarkdown(report, ""), Not(HasSubstr(".png")));
  EXPECT_THAT(ToMarkdown(report, ""), HasSubstr("**Figure 1a. Upstream quality against forward FLOPs.**"));
}

TEST(Markdown, HostileNamesStayText) {
  const std::string text = ToMarkdown(SmallReport(kHostile), "");
  EXPECT_THAT(text, Not(HasSubstr("<img")));
  EXPECT_THAT(text, HasSubstr("&lt;/script>&lt;img"));
  EXPECT_THAT(text, HasSubstr("{}~^\\\\\\|")) << "a backslash, and a pipe that ends no cell";
}

TEST(Latex, TablesAreBooktabsWithLabels) {
  const std::string text = ToLatex(SmallReport(), "figures");
  for (const char* part :
       {"\\toprule", "\\midrule", "\\bottomrule", "\\label{tab:models}", "\\label{fig:frontier_upstream}",
        "\\includegraphics[width=\\linewidth]{figures/frontier_upstream.png}", "$\\pm$", "$\\alpha$(F,U)"})
    EXPECT_THAT(text, HasSubstr(part));
  EXPECT_EQ(Count(text, "\\begin{"), Count(text, "\\end{"));
  EXPECT_THAT(ToLatex(SmallReport(), ""), Not(HasSubstr("\\includegraphics")));
}

TEST(Latex, SpecialCharactersAreEscaped) {
  const std::string text = ToLatex(SmallReport(kHostile), "");
  EXPECT_THAT(text, HasSubstr("\\textless{}/script\\textgreater{}"));
  EXPECT_THAT(text, HasSubstr("\\&\\$\\_\\{\\}\\textasciitilde{}\\textasciicircum{}\\textbackslash{}\\textbar{}"));
  EXPECT_THAT(text, Not(HasSubstr("±")));
  EXPECT_THAT(text, Not(HasSubstr("α")));
}

TEST(Latex, LongTablesGoOverPages) {
  MadeUpStudy study{.architectures = {}, .sizes = 4, .seeds = 1, .scores = false};
  for (int i = 0; i < 12; ++i) study.architectures.push_back("a" + std::to_string(i));
  const Report report = BuildReport(MakeTable(study), {}, {.draws = 0, .replicates = 0}).value();
  EXPECT_THAT(ToLatex(report, ""), HasSubstr("\\begin{longtable}"));
  EXPECT_THAT(ToLatex(SmallReport(), ""), Not(HasSubstr("\\begin{longtable}{llrrrrr")));
}

class RenderFiguresTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "render_figures_XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
  }
  void TearDown() override { fs::remove_all(folder_); }

  // Stands for Python: gets -c, the script, the folder, the bundle's path and the names.
  fs::path Interpreter(const std::string& body) {
    const fs::path path = folder_ / "python";
    std::ofstream(path) << "#!/bin/sh\n" << body;
    fs::permissions(path, fs::perms::owner_all);
    return path;
  }
  fs::path folder_;
};

TEST_F(RenderFiguresTest, WritesSpecificationsAndDataAndReadsTheDrawings) {
  const fs::path python = Interpreter(
      "folder=$3; echo bundle > $4; shift 4\n"
      "for name; do test -f $folder/$name.vl.json && echo \"<svg>$name</svg>\" > $folder/$name.svg; done\n");
  const Report report = SmallReport();
  const fs::path out = folder_ / "out";
  const Drawings drawings = RenderFigures(report, out, python).value();
  EXPECT_EQ(drawings.javascript, "bundle\n");
  EXPECT_EQ(drawings.svg.at("ranks_upstream"), "<svg>ranks_upstream</svg>\n");
  const Figure& figure = report.sections[0].figures[0];
  EXPECT_EQ(common::ReadJsonFile(out / "frontier_upstream.vl.json").value(), Specification(figure));
  EXPECT_EQ(common::ReadFile(out / "frontier_upstream.csv").value(),
            common::Render(figure.data, common::OutputFormat::kCsv));
  EXPECT_TRUE(RenderFigures(report, "", python).ok()) << "no folder keeps no files";
}

TEST_F(RenderFiguresTest, FailuresSayWhatToDo) {
  const auto missing = RenderFigures(SmallReport(), "", folder_ / "none");
  EXPECT_EQ(missing.error().code, common::ErrorCode::kFailedPrecondition);
  EXPECT_THAT(missing.error().message, HasSubstr("there is no Python at"));
  EXPECT_THAT(missing.error().message, HasSubstr("deploy/install-deps.sh"));
  const fs::path python = Interpreter("echo 'has no vl-convert-python' >&2; exit 1\n");
  const auto without = RenderFigures(SmallReport(), "", python);
  EXPECT_EQ(without.error().code, common::ErrorCode::kFailedPrecondition);
  EXPECT_THAT(without.error().message, HasSubstr("has no vl-convert-python. Run deploy/install-deps.sh"));
  EXPECT_FALSE(RenderFigures(SmallReport(), "", Interpreter("exit 0\n")).ok()) << "nothing was drawn";
}

TEST_F(RenderFiguresTest, DataNeedsNoPython) {
  ASSERT_TRUE(WriteFigureData(SmallReport(), folder_ / "data").ok());
  EXPECT_TRUE(fs::exists(folder_ / "data" / "scaling_downstream.csv"));
}

}  // namespace
}  // namespace allometry::report
