#include "cli/help_format.h"

#include <sstream>

namespace allometry::cli {
namespace {

constexpr size_t kWidth = 80;
constexpr size_t kNameColumns = 26;

// A name that leaves no blank before its description gets a line of its own.
std::string Row(const std::string& name, const std::string& description) {
  std::string left = "  " + name;
  left +=
      left.size() < kNameColumns ? std::string(kNameColumns - left.size(), ' ') : "\n" + std::string(kNameColumns, ' ');
  return left + Wrap(description, kWidth - kNameColumns, kNameColumns) + "\n";
}

}  // namespace

std::string Wrap(const std::string& text, size_t width, size_t indent) {
  std::istringstream words(text);
  std::string wrapped, word;
  size_t column = 0;
  while (words >> word) {
    if (column > 0 && column + 1 + word.size() > width) {
      wrapped += "\n" + std::string(indent, ' ');
      column = 0;
    }
    if (column > 0) wrapped += ' ', ++column;
    wrapped += word;
    column += word.size();
  }
  return wrapped;
}

std::string HelpFormatter::make_subcommand(const CLI::App* verb) const {
  return Row(verb->get_display_name(true), verb->get_description());
}

// CLI11 shows choices beside the name, as one long word: TEXT:{table,csv,json}. Here they end the description.
std::string HelpFormatter::make_option(const CLI::Option* option, bool is_positional) const {
  std::string type = make_option_opts(option), description = make_option_desc(option);
  const size_t open = type.find(":{"), close = type.find('}', open);
  if (open != std::string::npos && close != std::string::npos) {
    std::istringstream choices(type.substr(open + 2, close - open - 2));
    std::string choice, listed;
    while (std::getline(choices, choice, ',')) listed += (listed.empty() ? "" : ", ") + choice;
    description += " (" + listed + ")";
    type.erase(open, close - open + 1);
  }
  return Row(make_option_name(option, is_positional) + type, description);
}

std::string HelpFormatter::make_description(const CLI::App* app) const {
  return Wrap(app->get_description(), kWidth, 0) + "\n";
}

}  // namespace allometry::cli
