#include <memory>

#include "cli/client.h"
#include "cli/interrupt.h"
#include "cli/verb.h"
#include "cli/view.h"

namespace allometry::cli::verb_watch {
namespace {

struct Options {
  std::string sweep;
  ConnectOptions connect;
};

int Watch(const Options& options) {
  ALLO_ASSIGN_OR_FAIL(const auto client, Client::Open(options.connect));
  CountInterrupts();
  const auto view = ProgressView::ForStandardOutput();
  ALLO_ASSIGN_OR_FAIL(const WatchEnd end,
                      WatchSweep(*client, options.sweep, *view, [] { return InterruptCount() > 0; }));
  return ExitCodeOf(end);
}

void Declare(CLI::App& program) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = program.add_subcommand("watch", "Follow a sweep until it ends");
  verb->add_option("sweep", options->sweep, "Name of the sweep")->required();
  AddConnectOptions(verb, &options->connect);
  OnRun(verb, [options] { return Watch(*options); });
}

const VerbRegistration kWatch(70, Declare);

}  // namespace
}  // namespace allometry::cli::verb_watch
