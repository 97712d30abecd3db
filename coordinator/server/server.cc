#include "coordinator/server/server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <condition_variable>
#include <future>
#include <mutex>
#include <thread>

#include "common/clock.h"
#include "common/version.h"
#include "coordinator/rpc/analysis_service.h"
#include "coordinator/rpc/cluster_service.h"
#include "coordinator/rpc/sweep_service.h"
#include "coordinator/rpc/worker_service.h"

namespace allometry::coordinator {
namespace {

// Submit of a grid with a long manifest is the largest message that comes in.
constexpr int kMaxReceiveBytes = 64 << 20;
constexpr auto kStopPatience = std::chrono::seconds(2);

size_t PoolThreads() { return std::clamp<size_t>(std::thread::hardware_concurrency(), 4, 16); }

// Binds and lets go again: gRPC alone would only say that it could not listen.
common::Status CheckAddress(const ListenPlan& plan, const std::string& address) {
  namespace ip = boost::asio::ip;
  boost::asio::io_context context;
  boost::system::error_code error;
  const auto host = ip::make_address(plan.host == "localhost" ? "127.0.0.1" : plan.host, error);
  if (error) return common::Ok();  // a name: gRPC resolves it
  ip::tcp::acceptor acceptor(context);
  const ip::tcp::endpoint endpoint(host, static_cast<uint16_t>(plan.port));
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(ip::tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(1, error);
  if (error == boost::asio::error::address_in_use) {
    return common::FailedPrecondition("cannot listen on " + address +
                                      ": the port is in use; stop the other program, or choose "
                                      "another port (0 lets the system choose)");
  }
  if (error) return common::FailedPrecondition("cannot listen on " + address + ": " + error.message());
  return common::Ok();
}

void SetChannelArguments(grpc::ServerBuilder* builder) {
  // With SO_REUSEPORT a second server would share the port silently.
  builder->AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  // Finds workers whose machine vanished; and lets theirs ask for us as often.
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10'000);
  builder->SetMaxReceiveMessageSize(kMaxReceiveBytes);
  builder->SetMaxSendMessageSize(-1);
}

}  // namespace

class CoordinatorServer::Impl {
 public:
  Impl(const CoordinatorOptions& options, DataDirectory directory)
      : options_(options),
        directory_(std::move(directory)),
        auth_(options.listen.token),
        pool_(PoolThreads()),
        collect_timer_(pool_) {}
  ~Impl() { Stop(); }

  common::Status Open();
  common::Status Listen(const ListenPlan& plan);
  void Stop();
  void Wait();

  const std::string& address() const { return address_; }
  const Hub& hub() const { return *hub_; }
  const DataDirectory& directory() const { return directory_; }

 private:
  CoreOptions MakeCoreOptions() const;
  common::Status PublishEndpoint(const ListenPlan& plan);
  void ScheduleCollection();
  void CollectBlobs();
  bool IsNamed(const std::string& sha256);

  CoordinatorOptions options_;
  DataDirectory directory_;
  Auth auth_;
  std::unique_ptr<BlobStore> blobs_;
  boost::asio::thread_pool pool_;
  std::mutex timer_mutex_;  // guards collect_timer_, which the pool sets and Stop cancels
  boost::asio::steady_timer collect_timer_;
  std::atomic<bool> stopping_ = false;
  std::unique_ptr<Hub> hub_;
  std::unique_ptr<WorkerServiceImpl> worker_service_;
  std::unique_ptr<SweepServiceImpl> sweep_service_;
  std::unique_ptr<ClusterServiceImpl> cluster_service_;
  std::unique_ptr<AnalysisServiceImpl> analysis_service_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;

  std::mutex stop_mutex_;  // guards stopped_
  std::condition_variable stopped_condition_;
  bool stop_begun_ = false;
  bool stopped_ = false;
};

CoreOptions CoordinatorServer::Impl::MakeCoreOptions() const {
  CoreOptions core;
  core.now_boot_ms = common::BootMillis;
  core.now_unix_ms = common::UnixMillis;
  core.has_blob = [blobs = blobs_.get()](const std::string& sha256) { return blobs->Has(sha256); };
  core.version = common::kVersion;
  core.commit = common::kCommit;
  core.data_dir = directory_.path().string();
  core.lease_ttl_ms = options_.lease_ttl_ms;
  core.renew_interval_ms = options_.renew_interval_ms;
  core.checkpoint_upload_interval_ms = options_.checkpoint_upload_interval_ms;
  return core;
}

common::Status CoordinatorServer::Impl::Open() {
  ALLO_ASSIGN_OR_RETURN(blobs_, BlobStore::Open(directory_.Blobs()));
  ALLO_ASSIGN_OR_RETURN(auto store, store::Store::Open(directory_.Database()));
  ALLO_ASSIGN_OR_RETURN(hub_, Hub::Open(std::move(store), MakeCoreOptions()));
  const ServiceContext services{hub_.get(), &auth_, &pool_};
  worker_service_ = std::make_unique<WorkerServiceImpl>(services, blobs_.get());
  sweep_service_ = std::make_unique<SweepServiceImpl>(services, directory_.Database());
  cluster_service_ = std::make_unique<ClusterServiceImpl>(services, blobs_.get(), directory_.Database());
  analysis_service_ = std::make_unique<AnalysisServiceImpl>(services, directory_.Database());
  return common::Ok();
}

common::Status CoordinatorServer::Impl::Listen(const ListenPlan& plan) {
  ALLO_RETURN_IF_ERROR(CheckAddress(plan, options_.listen.address));
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  int port = 0;
  SetChannelArguments(&builder);
  builder.AddListeningPort(options_.listen.address, plan.credentials, &port);
  builder.RegisterService(worker_service_.get());
  builder.RegisterService(sweep_service_.get());
  builder.RegisterService(cluster_service_.get());
  builder.RegisterService(analysis_service_.get());
  server_ = builder.BuildAndStart();
  if (!server_ || port == 0) return common::FailedPrecondition("cannot listen on " + options_.listen.address);
  const bool v6 = plan.host.find(':') != std::string::npos;
  address_ = (v6 ? "[" + plan.host + "]" : plan.host) + ":" + std::to_string(port);
  ScheduleCollection();
  return PublishEndpoint(plan);
}

common::Status CoordinatorServer::Impl::PublishEndpoint(const ListenPlan& plan) {
  // Clients on this machine need an address they can dial: the wildcard is none.
  std::string dial = address_;
  if (plan.host == "0.0.0.0") dial = "127.0.0.1" + address_.substr(address_.rfind(':'));
  if (plan.host == "::") dial = "[::1]" + address_.substr(address_.rfind(':'));
  return directory_.WriteEndpoint({.address = dial,
                                   .pid = ::getpid(),
                                   .token = options_.listen.token,
                                   .cluster_id = hub_->cluster_id(),
                                   .tls = !options_.listen.tls_certificate.empty()});
}

void CoordinatorServer::Impl::ScheduleCollection() {
  std::lock_guard lock(timer_mutex_);
  if (stopping_) return;  // set before the cancelling: a timer set after it would hold up the pool's end
  collect_timer_.expires_after(std::chrono::milliseconds(options_.collect_interval_ms));
  collect_timer_.async_wait([this](const boost::system::error_code& error) {
    if (error || stopping_) return;
    CollectBlobs();
    ScheduleCollection();
  });
}

bool CoordinatorServer::Impl::IsNamed(const std::string& sha256) {
  auto answer = std::make_shared<std::promise<bool>>();
  auto future = answer->get_future();
  const bool posted = !stopping_ && hub_->Post([answer, sha256](Core& core) {
    const auto named = core.NamesBlob(sha256);
    answer->set_value(!named || *named);  // what cannot be found out stays
  });
  return !posted || future.get();
}

void CoordinatorServer::Impl::CollectBlobs() {
  const auto collected = blobs_->Collect([this](const std::string& sha256) { return IsNamed(sha256); },
                                         common::UnixMillis() - options_.blob_grace_ms);
  if (!collected) return spdlog::warn("collecting blobs: {}", collected.error().message);
  if (collected->blobs > 0)
    spdlog::info("removed {} blobs ({} bytes) that nothing names", collected->blobs, collected->bytes);
}

void CoordinatorServer::Impl::Stop() {
  {
    std::unique_lock lock(stop_mutex_);
    if (std::exchange(stop_begun_, true)) {
      stopped_condition_.wait(lock, [this] { return stopped_; });
      return;
    }
  }
  stopping_ = true;
  if (server_) {
    hub_->CloseStreams();
    server_->Shutdown(std::chrono::system_clock::now() + kStopPatience);
    server_->Wait();
    directory_.RemoveEndpoint();
  }
  {
    std::lock_guard lock(timer_mutex_);
    collect_timer_.cancel();
  }
  pool_.join();
  if (hub_) hub_->Stop();
  {
    std::lock_guard lock(stop_mutex_);
    stopped_ = true;
  }
  stopped_condition_.notify_all();
}

void CoordinatorServer::Impl::Wait() {
  std::unique_lock lock(stop_mutex_);
  stopped_condition_.wait(lock, [this] { return stopped_; });
}

common::Result<std::unique_ptr<CoordinatorServer>> CoordinatorServer::Start(const CoordinatorOptions& options) {
  ALLO_ASSIGN_OR_RETURN(const ListenPlan plan, PlanListening(options.listen));
  ALLO_ASSIGN_OR_RETURN(auto directory,
                        DataDirectory::Open(options.data_dir.empty() ? DefaultDataDir() : options.data_dir));
  auto impl = std::make_unique<Impl>(options, std::move(directory));
  ALLO_RETURN_IF_ERROR(impl->Open());
  ALLO_RETURN_IF_ERROR(impl->Listen(plan));
  return std::unique_ptr<CoordinatorServer>(new CoordinatorServer(std::move(impl)));
}

CoordinatorServer::CoordinatorServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
CoordinatorServer::~CoordinatorServer() = default;
std::string CoordinatorServer::address() const { return impl_->address(); }
std::string CoordinatorServer::cluster_id() const { return impl_->hub().cluster_id(); }
std::filesystem::path CoordinatorServer::data_dir() const { return impl_->directory().path(); }
void CoordinatorServer::Stop() { impl_->Stop(); }
void CoordinatorServer::Wait() { impl_->Wait(); }
int64_t CoordinatorServer::StrandCpuNanoseconds() const { return impl_->hub().StrandCpuNanoseconds(); }

}  // namespace allometry::coordinator
