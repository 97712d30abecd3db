#include "coordinator/rpc/log_stream.h"

#include <deque>

#include "coordinator/rpc/pull_stream.h"
#include "coordinator/store/reader.h"

namespace allometry::coordinator {
namespace {

constexpr std::chrono::milliseconds kFollowInterval{500};
constexpr int64_t kBytesAtOnce = 256 << 10;

using LogPull = PullStream<v1::LogChunk>;

bool IsFinal(v1::RunState state) {
  return state == v1::RUN_STATE_DONE || state == v1::RUN_STATE_FAILED || state == v1::RUN_STATE_DIVERGED;
}

// Where one reader of logs stands. Used by one thread at a time: the strand and the pool hand it to one another.
class LogReader : public std::enable_shared_from_this<LogReader> {
 public:
  LogReader(const ServiceContext& services, const std::filesystem::path& database, const v1::LogsRequest& request)
      : services_(services), database_(database), request_(request) {}

  // On the pool.
  void Next(LogPull* stream) {
    if (attempt_id_ == 0) return Locate(stream);
    if (pieces_.empty())
      if (auto read = ReadMore(); !read) return stream->End(common::ToGrpc(read.error()));
    if (!pieces_.empty()) return SendPiece(stream);
    if (ended_) return stream->End(grpc::Status::OK);
    Locate(stream);
  }

 private:
  // Opens a connection for each look: followers wait long, and none of them may hold one meanwhile.
  common::Status ReadMore() {
    ALLO_ASSIGN_OR_RETURN(auto reader, store::Reader::Open(database_));
    ALLO_ASSIGN_OR_RETURN(const std::vector<std::string> streams, reader->LogStreams(attempt_id_));
    for (const std::string& name : streams) {
      const int64_t from = offsets_.try_emplace(name, first_offset_).first->second;
      ALLO_ASSIGN_OR_RETURN(auto pieces, reader->Logs(attempt_id_, name, from, kBytesAtOnce));
      for (store::LogPiece& piece : pieces) {
        offsets_[name] = piece.offset + static_cast<int64_t>(piece.data.size());
        pieces_.push_back(std::move(piece));
      }
    }
    return common::Ok();
  }

  void SendPiece(LogPull* stream) {
    v1::LogChunk chunk;
    chunk.set_attempt_id(attempt_id_);
    chunk.set_stream(pieces_.front().stream);
    chunk.set_offset(pieces_.front().offset);
    chunk.set_data(std::move(pieces_.front().data));
    pieces_.pop_front();
    stream->Write(std::move(chunk));
  }

  // Asks the state which attempt to read and whether more can come.
  void Locate(LogPull* stream) {
    const bool posted = services_.hub->Post([self = shared_from_this(), stream](Core& core) {
      auto place = core.FindAttempt(self->request_.cell(), self->request_.attempt());
      const bool waits = self->request_.follow() && self->request_.attempt() == 0;
      bool final = true;
      if (waits) {
        v1::ExplainRequest question;
        question.set_cell(self->request_.cell());
        if (auto explained = core.Explain(question)) final = IsFinal(explained->cell().state());
      }
      boost::asio::post(*self->services_.pool,
                        [self, stream, place = std::move(place), final] { self->GoOn(stream, place, final); });
    });
    if (!posted) stream->End(StoppingStatus());
  }

  void GoOn(LogPull* stream, const common::Result<Core::AttemptPlace>& place, bool final) {
    if (!place) {
      // Nothing has run yet: whoever follows waits for the first attempt.
      if (place.error().code == common::ErrorCode::kNotFound && !final) return stream->RetryAfter(kFollowInterval);
      return stream->End(common::ToGrpc(place.error()));
    }
    const bool more = request_.follow() && (place->live || !final);
    if (place->attempt_id == 0) return more ? stream->RetryAfter(kFollowInterval) : stream->End(grpc::Status::OK);
    if (place->attempt_id != attempt_id_) {
      first_offset_ = attempt_id_ == 0 ? request_.offset() : 0;
      attempt_id_ = place->attempt_id;
      offsets_.clear();
      return Next(stream);
    }
    // What came between the last look and the answer "it has ended" is still to be sent.
    ended_ = !more;
    ended_ ? Next(stream) : stream->RetryAfter(kFollowInterval);
  }

  ServiceContext services_;
  std::filesystem::path database_;
  v1::LogsRequest request_;
  int64_t attempt_id_ = 0;
  int64_t first_offset_ = 0;
  std::map<std::string, int64_t> offsets_;  // by stream: what has been read
  std::deque<store::LogPiece> pieces_;      // read and not yet sent
  bool ended_ = false;
};

}  // namespace

grpc::ServerWriteReactor<v1::LogChunk>* NewLogStream(const ServiceContext& services,
                                                     const std::filesystem::path& database,
                                                     const v1::LogsRequest& request) {
  auto reader = std::make_shared<LogReader>(services, database, request);
  return new LogPull(services.pool, [reader](LogPull* stream) { reader->Next(stream); });
}

}  // namespace allometry::coordinator
