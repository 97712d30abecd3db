#pragma once

#include <grpcpp/grpcpp.h>

#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <utility>

#include "common/grpc_status.h"
#include "coordinator/rpc/auth.h"
#include "coordinator/rpc/hub.h"

// How a unary call gets from gRPC's thread to the state and back. Request and response live until Finish, so they
// travel as pointers.
namespace allometry::coordinator {

// What every service needs; owned by the server, outlives it.
struct ServiceContext {
  Hub* hub = nullptr;
  const Auth* auth = nullptr;
  boost::asio::thread_pool* pool = nullptr;  // for what reads files or takes long
};

template <typename Response>
void FinishWith(grpc::ServerUnaryReactor* reactor, Response* response, common::Result<Response> result) {
  if (result) *response = std::move(result).value();
  reactor->Finish(result ? grpc::Status::OK : common::ToGrpc(result.error()));
}

inline grpc::Status StoppingStatus() { return {grpc::StatusCode::UNAVAILABLE, "the coordinator is stopping"}; }

// Runs `event(core)` on the strand, or ends the call.
template <typename Event>
void PostOrFinish(const ServiceContext& services, grpc::ServerUnaryReactor* reactor, Event event) {
  if (!services.hub->Post(std::move(event))) reactor->Finish(StoppingStatus());
}

// A call that changes the state: queued as an event of Core, answered after its commit.
template <typename Request, typename Response>
grpc::ServerUnaryReactor* ChangeCall(const ServiceContext& services, grpc::CallbackServerContext* context,
                                     const Request* request, Response* response,
                                     void (Core::*method)(Request, Reply<Response>)) {
  auto* reactor = context->DefaultReactor();
  if (auto status = services.auth->Check(*context); !status.ok()) {
    reactor->Finish(status);
    return reactor;
  }
  PostOrFinish(services, reactor, [reactor, request, response, method](Core& core) {
    (core.*method)(*request, [reactor, response](common::Result<Response> result) {
      FinishWith(reactor, response, std::move(result));
    });
  });
  return reactor;
}

// A call that reads the state on the strand: `read(core)` gives a Result<Response>.
template <typename Response, typename Read>
grpc::ServerUnaryReactor* ReadCall(const ServiceContext& services, grpc::CallbackServerContext* context,
                                   Response* response, Read read) {
  auto* reactor = context->DefaultReactor();
  if (auto status = services.auth->Check(*context); !status.ok()) {
    reactor->Finish(status);
    return reactor;
  }
  PostOrFinish(services, reactor,
               [reactor, response, read](Core& core) { FinishWith<Response>(reactor, response, read(core)); });
  return reactor;
}

// A call whose work is done on the pool: `work(reactor)` must finish it, there or later.
template <typename Work>
grpc::ServerUnaryReactor* PoolCall(const ServiceContext& services, grpc::CallbackServerContext* context, Work work) {
  auto* reactor = context->DefaultReactor();
  if (auto status = services.auth->Check(*context); !status.ok()) {
    reactor->Finish(status);
    return reactor;
  }
  boost::asio::post(*services.pool, [reactor, work] { work(reactor); });
  return reactor;
}

// Streams that are refused before they begin.
template <typename Reactor>
class Refusal final : public Reactor {
 public:
  explicit Refusal(const grpc::Status& status) { this->Finish(status); }
  void OnDone() override { delete this; }
};

}  // namespace allometry::coordinator
