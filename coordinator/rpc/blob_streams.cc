#include "coordinator/rpc/blob_streams.h"

#include <boost/asio/post.hpp>
#include <memory>

#include "common/grpc_status.h"
#include "common/thread_order.h"

namespace allometry::coordinator {
namespace {

using common::Status;

class UploadReactor : public grpc::ServerReadReactor<v1::BlobChunk> {
 public:
  UploadReactor(BlobStore* store, boost::asio::thread_pool* pool, v1::UploadBlobResponse* response)
      : store_(store), pool_(pool), response_(response) {
    StartRead(&chunk_);
  }

  // One operation is under way at any time, so the members need no lock.
  void OnReadDone(bool ok) override {
    common::OrderedAfter(this);
    boost::asio::post(*pool_, [this, ok] { ok ? TakeChunk() : End(); });
  }
  void OnDone() override {
    common::OrderedAfter(this);
    delete this;
  }

 private:
  void TakeChunk() {
    const Status status = Append();
    common::OrderedBefore(this);
    if (status.ok()) {
      StartRead(&chunk_);
    } else {
      Finish(common::ToGrpc(status));
    }
  }

  Status Append() {
    if (chunk_.data().size() > kBlobChunkBytes) {
      return common::InvalidArgument("a chunk of " + std::to_string(chunk_.data().size()) +
                                     " bytes: at most 1,048,576 are allowed");
    }
    if (!upload_) {
      ALLO_ASSIGN_OR_RETURN(upload_, store_->BeginUpload(chunk_.sha256(), chunk_.offset(), chunk_.total_bytes()));
      position_ = chunk_.offset();
    }
    if (chunk_.offset() != position_) {
      return common::InvalidArgument("a chunk at offset " + std::to_string(chunk_.offset()) + ", expected was " +
                                     std::to_string(position_));
    }
    position_ += static_cast<int64_t>(chunk_.data().size());
    return upload_->Append(chunk_.data());
  }

  void End() {
    Status status = upload_ ? upload_->Finish() : Status(common::InvalidArgument("an upload without any chunk"));
    upload_.reset();
    response_->set_bytes(position_);
    common::OrderedBefore(this);
    Finish(common::ToGrpc(status));
  }

  BlobStore* store_;
  boost::asio::thread_pool* pool_;
  v1::UploadBlobResponse* response_;
  v1::BlobChunk chunk_;
  std::unique_ptr<BlobStore::Upload> upload_;
  int64_t position_ = 0;
};

class DownloadReactor : public grpc::ServerWriteReactor<v1::BlobChunk> {
 public:
  DownloadReactor(BlobStore* store, boost::asio::thread_pool* pool, const v1::DownloadBlobRequest& request)
      : pool_(pool) {
    boost::asio::post(*pool_, [this, store, sha256 = request.sha256(), offset = request.offset()] {
      auto reader = store->OpenReader(sha256, offset);
      if (!reader) return End(common::ToGrpc(reader.error()));
      reader_ = std::move(reader).value();
      chunk_.set_sha256(sha256);
      chunk_.set_total_bytes(reader_->total_bytes());
      SendNext(/*first=*/true);
    });
  }

  void OnWriteDone(bool ok) override {
    common::OrderedAfter(this);
    if (!ok) return Finish(grpc::Status::CANCELLED);
    boost::asio::post(*pool_, [this] { SendNext(/*first=*/false); });
  }
  void OnDone() override {
    common::OrderedAfter(this);
    delete this;
  }

 private:
  // The first chunk comes even of an empty blob: it carries the size.
  void SendNext(bool first) {
    chunk_.set_offset(reader_->offset());
    auto data = reader_->Read(kBlobChunkBytes);
    if (!data) return End(common::ToGrpc(data.error()));
    if (data->empty() && !first) return End(grpc::Status::OK);
    if (!first) chunk_.clear_sha256();
    chunk_.set_data(std::move(*data));
    common::OrderedBefore(this);
    StartWrite(&chunk_);
  }

  void End(const grpc::Status& status) {
    common::OrderedBefore(this);
    Finish(status);
  }

  boost::asio::thread_pool* pool_;
  std::unique_ptr<BlobStore::Reader> reader_;
  v1::BlobChunk chunk_;
};

}  // namespace

grpc::ServerReadReactor<v1::BlobChunk>* NewUploadReactor(BlobStore* store, boost::asio::thread_pool* pool,
                                                         v1::UploadBlobResponse* response) {
  return new UploadReactor(store, pool, response);
}

grpc::ServerWriteReactor<v1::BlobChunk>* NewDownloadReactor(BlobStore* store, boost::asio::thread_pool* pool,
                                                            const v1::DownloadBlobRequest& request) {
  return new DownloadReactor(store, pool, request);
}

}  // namespace allometry::coordinator
