#include <iostream>
#include <memory>

#include "cli/client.h"
#include "cli/interrupt.h"
#include "cli/raw_files.h"
#include "cli/sweep_input.h"
#include "cli/verb.h"
#include "cli/view.h"

namespace allometry::cli::verb_submit {
namespace {

struct Options {
  std::string file;
  std::string data_root;
  bool update = false;
  bool wait = false;
  bool no_upload = false;
  ConnectOptions connect;
};

int SubmitSweep(const Options& options) {
  ALLO_ASSIGN_OR_FAIL(const SweepInput input, ReadSweepInput(options.file, options.data_root));
  ALLO_ASSIGN_OR_FAIL(const auto client, Client::Open(options.connect));
  if (!options.no_upload)
    if (const auto uploaded = UploadRawFiles(*client, options.connect.ca_file, input.manifest); !uploaded)
      return Fail(uploaded.error());
  ALLO_ASSIGN_OR_FAIL(const v1::SubmitResponse response, Submit(*client, input, options.update));
  std::cout << SubmittedText(response) << std::endl;
  if (!options.wait) return kExitOk;
  CountInterrupts();
  const auto view = ProgressView::ForStandardOutput();
  ALLO_ASSIGN_OR_FAIL(const WatchEnd end,
                      WatchSweep(*client, input.spec.name(), *view, [] { return InterruptCount() > 0; }));
  if (end == WatchEnd::kInterrupted)
    std::cout << "The sweep goes on; see it with: allo watch " << input.spec.name() << '\n';
  return ExitCodeOf(end);
}

void Declare(CLI::App& program) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = program.add_subcommand("submit", "Hand a sweep to the coordinator");
  verb->add_option("sweep", options->file, "Sweep file (YAML)")->required();
  AddDataRootOption(verb, &options->data_root);
  verb->add_flag("--update", options->update, "Replace the spec of a sweep of this name; results are kept");
  verb->add_flag("--wait", options->wait, "Watch until it ends; exit code 0 all done, 1 some failed");
  verb->add_flag("--no-upload", options->no_upload,
                 "Do not hand the raw files to the coordinator: the workers find them where they are here");
  AddConnectOptions(verb, &options->connect);
  OnRun(verb, [options] { return SubmitSweep(*options); });
}

const VerbRegistration kSubmit(50, Declare);

}  // namespace
}  // namespace allometry::cli::verb_submit
