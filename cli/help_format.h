#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace allometry::cli {

// Help texts that fit 80 columns: names on the left, descriptions wrapped on the right.
class HelpFormatter : public CLI::Formatter {
 public:
  std::string make_subcommand(const CLI::App* verb) const override;
  std::string make_option(const CLI::Option* option, bool is_positional) const override;
  std::string make_description(const CLI::App* app) const override;
};

// `text` in lines of at most `width` columns, broken at blanks; lines after the first begin with `indent` blanks. Words
// longer than a line stay whole.
std::string Wrap(const std::string& text, size_t width, size_t indent);

}  // namespace allometry::cli
