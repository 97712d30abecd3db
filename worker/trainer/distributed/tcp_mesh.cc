#include "worker/trainer/distributed/tcp_mesh.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <optional>
#include <thread>

#include "common/files.h"
#include "common/sha256.h"

namespace allometry::trainer {
namespace {

using common::Json;
using Clock = std::chrono::steady_clock;

constexpr char kMagic[] = "ALLORNK1";
constexpr size_t kKeyBytes = 32, kNonceDigits = 32, kMacDigits = 64, kMostWord = 4096;
constexpr int kHandshakeTimeoutS = 10, kDialTimeoutS = 3;
constexpr uint64_t kLongestMessage = uint64_t{1} << 40;

[[noreturn]] void Fail(const std::string& what) { throw PeerLost(what); }

std::string Name(int rank) { return "rank " + std::to_string(rank); }

// ---- Secrets

std::string Hex(std::string_view bytes) {
  std::string out;
  for (const char c : bytes) {
    constexpr char kDigits[] = "0123456789abcdef";
    out += kDigits[static_cast<unsigned char>(c) >> 4];
    out += kDigits[static_cast<unsigned char>(c) & 15];
  }
  return out;
}

std::string RandomHex(size_t bytes) {
  std::string random(bytes, '\0');
  if (::getrandom(random.data(), bytes, 0) != static_cast<ssize_t>(bytes)) Fail("no random bytes can be had");
  return Hex(random);
}

// HMAC-SHA-256 (RFC 2104) of a key of at most 64 bytes, in hexadecimal. The inner hash is taken in as digits.
std::string Mac(const std::string& key, const std::string& message) {
  std::string inner(64, '\x36'), outer(64, '\x5c');
  for (size_t i = 0; i < key.size() && i < 64; ++i) {
    inner[i] = static_cast<char>(inner[i] ^ key[i]);
    outer[i] = static_cast<char>(outer[i] ^ key[i]);
  }
  return common::Sha256Hex(outer + common::Sha256Hex(inner + message));
}

bool EqualSecrets(const std::string& a, const std::string& b) {
  unsigned difference = a.size() == b.size() ? 0 : 1;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) difference |= static_cast<unsigned char>(a[i] ^ b[i]);
  return difference == 0;
}

// ---- Sockets

class Socket {
 public:
  explicit Socket(int fd = -1) : fd_(fd) {}
  Socket(Socket&& other) noexcept : fd_(other.Release()) {}
  Socket& operator=(Socket&& other) noexcept {
    if (fd_ >= 0) ::close(fd_);
    fd_ = other.Release();
    return *this;
  }
  ~Socket() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }
  int Release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

void SetTimeouts(int fd, int seconds) {
  const timeval limit{seconds, 0};
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

// A host that vanished is noticed after about 10 + 4 * 5 s of silence, or 30 s of unacknowledged bytes.
void MakeLasting(int fd) {
  SetTimeouts(fd, 0);
  const int on = 1, idle_s = 10, interval_s = 5, probes = 4, user_timeout_ms = 30'000;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  ::setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
  ::setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout_ms, sizeof user_timeout_ms);
}

bool WriteAll(int fd, const std::string& bytes) {
  for (size_t at = 0; at < bytes.size();) {
    const ssize_t n = ::send(fd, bytes.data() + at, bytes.size() - at, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    at += static_cast<size_t>(n);
  }
  return true;
}

// Nothing if the other side closes or says nothing.
std::optional<std::string> ReadExactly(int fd, size_t size) {
  std::string bytes(size, '\0');
  for (size_t at = 0; at < size;) {
    const ssize_t n = ::recv(fd, bytes.data() + at, size - at, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return std::nullopt;
    at += static_cast<size_t>(n);
  }
  return bytes;
}

// Nothing if the name is unknown.
std::optional<sockaddr_in> AddressOf(const std::string& host, int port) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_family = AF_INET;
  hints.ai_socktype = SOCK_STREAM;
  if (::getaddrinfo(host.c_str(), nullptr, &hints, &found) != 0) return std::nullopt;
  sockaddr_in address = *reinterpret_cast<const sockaddr_in*>(found->ai_addr);
  ::freeaddrinfo(found);
  address.sin_port = htons(static_cast<uint16_t>(port));
  return address;
}

struct Listener {
  Socket socket;
  int port = 0;
};

bool Bind(int fd, const std::string& host) {
  const auto address = AddressOf(host, 0);
  return address && ::bind(fd, reinterpret_cast<const sockaddr*>(&*address), sizeof *address) == 0;
}

// A name or address under which others reach this machine need not be one of its own (NAT): then all are listened on.
Listener Listen(const std::string& host) {
  Listener listener{Socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0))};
  sockaddr_in address{};
  socklen_t size = sizeof address;
  const int fd = listener.socket.get();
  if (!(Bind(fd, host) || Bind(fd, "0.0.0.0")) || ::listen(fd, SOMAXCONN) != 0 ||
      ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0)
    Fail("cannot listen on " + host + " for the other ranks: " + common::ErrnoText());
  listener.port = ntohs(address.sin_port);
  return listener;
}

// Where others may reach this machine: every interface that is up, loopback last.
std::vector<std::string> OwnAddresses(const std::string& listen) {
  if (listen != "0.0.0.0") return {listen};
  std::vector<std::string> addresses;
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) == 0) {
    for (const ifaddrs* i = list; i; i = i->ifa_next) {
      if (!i->ifa_addr || i->ifa_addr->sa_family != AF_INET || !(i->ifa_flags & IFF_UP) ||
          (i->ifa_flags & IFF_LOOPBACK))
        continue;
      std::array<char, INET_ADDRSTRLEN> text{};
      const auto* address = reinterpret_cast<const sockaddr_in*>(i->ifa_addr);
      if (::inet_ntop(AF_INET, &address->sin_addr, text.data(), text.size())) addresses.emplace_back(text.data());
    }
    ::freeifaddrs(list);
  }
  addresses.emplace_back("127.0.0.1");
  return addresses;
}

// ---- Handshakes: hello (magic, rank, channel, nonce); nonce, proof; proof.

struct Hello {
  int rank = -1, channel = -1;
  std::string nonce;
  std::string Text() const {
    std::array<char, 32> numbers{};
    std::snprintf(numbers.data(), numbers.size(), "%06d%06d", rank, channel);
    return kMagic + std::string(numbers.data()) + nonce;
  }
  static constexpr size_t kSize = sizeof kMagic - 1 + 12 + kNonceDigits;
};

bool Greet(int fd, const std::string& key, const Hello& hello) {
  SetTimeouts(fd, kHandshakeTimeoutS);
  if (!WriteAll(fd, hello.Text())) return false;
  const auto answer = ReadExactly(fd, kNonceDigits + kMacDigits);
  if (!answer || !EqualSecrets(answer->substr(kNonceDigits), Mac(key, "listener" + hello.Text()))) return false;
  return WriteAll(fd, Mac(key, "dialer" + answer->substr(0, kNonceDigits) + hello.Text()));
}

// Who has connected; nothing if it does not know the key.
std::optional<Hello> AnswerGreeting(int fd, const std::string& key) {
  SetTimeouts(fd, kHandshakeTimeoutS);
  const auto text = ReadExactly(fd, Hello::kSize);
  if (!text || text->rfind(kMagic, 0) != 0) return std::nullopt;
  const std::string numbers = text->substr(sizeof kMagic - 1, 12);
  if (numbers.find_first_not_of("0123456789") != std::string::npos) return std::nullopt;
  Hello hello{std::stoi(numbers.substr(0, 6)), std::stoi(numbers.substr(6)), text->substr(sizeof kMagic - 1 + 12)};
  const std::string nonce = RandomHex(kNonceDigits / 2);
  if (!WriteAll(fd, nonce + Mac(key, "listener" + *text))) return std::nullopt;
  const auto proof = ReadExactly(fd, kMacDigits);
  if (!proof || !EqualSecrets(*proof, Mac(key, "dialer" + nonce + *text))) return std::nullopt;
  return hello;
}

Socket Dial(const std::string& host, int port) {
  Socket socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  SetTimeouts(socket.get(), kDialTimeoutS);
  const auto address = AddressOf(host, port);
  if (!address || ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) != 0)
    return Socket();
  return socket;
}

// ---- Meeting

// What stands in rank 0's word, and what the other ranks tell it.
struct Place {
  std::vector<std::string> addresses;
  int port = 0;
  Json ToJson() const { return {{"addresses", addresses}, {"port", port}}; }
  std::string Text() const {
    std::string text;
    for (const std::string& address : addresses)
      text += (text.empty() ? "" : ", ") + address + ":" + std::to_string(port);
    return text;
  }
  static Place From(const Json& json) {
    return {json.at("addresses").get<std::vector<std::string>>(), json.at("port").get<int>()};
  }
};

constexpr char kAddressAdvice[] =
    "is the --address of the worker that listens there right, and is no firewall between the workers?";
constexpr char kInputsAdvice[] = " If inputs take longer to fetch on some workers, raise execution.peer_timeout_s";

// The limit of one step of the meeting.
class Deadline {
 public:
  explicit Deadline(const MeshOptions& options, int64_t more_s = 0)
      : options_(options), limit_s_(options.connect_timeout_s + more_s) {
    Restart();
  }
  void Restart() { end_ = Clock::now() + std::chrono::seconds(limit_s_); }
  void Check(const std::string& waiting_for, const std::string& advice) const {
    if (options_.cancelled && options_.cancelled()) throw MeetingCancelled("stopped while waiting for " + waiting_for);
    if (Clock::now() >= end_)
      throw CollectiveTimeout("waited " + std::to_string(limit_s_) + " s in vain for " + waiting_for + ": " + advice);
  }

 private:
  const MeshOptions& options_;
  int64_t limit_s_;
  Clock::time_point end_;
};

Socket Connect(const Place& place, int peer, const std::string& key, Hello hello, const Deadline& deadline) {
  for (;;) {
    for (const std::string& address : place.addresses) {
      deadline.Check(Name(peer) + " to answer at " + place.Text(), kAddressAdvice);
      Socket socket = Dial(address, place.port);
      hello.nonce = RandomHex(kNonceDigits / 2);
      if (socket.get() >= 0 && Greet(socket.get(), key, hello)) return socket;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
}

}  // namespace

TcpMesh::TcpMesh(const MeshOptions& options, int channels)
    : options_(options), connections_(static_cast<size_t>(channels * options.ranks), -1) {
  try {
    Meet(channels);
  } catch (...) {
    for (const int fd : connections_)
      if (fd >= 0) ::close(fd);
    throw;
  }
  for (const int fd : connections_)
    if (fd >= 0) MakeLasting(fd);
  bytes_sent_ = 0;
}

TcpMesh::~TcpMesh() {
  for (const int fd : connections_)
    if (fd >= 0) ::close(fd);
}

void TcpMesh::Shutdown() {
  for (const int fd : connections_)
    if (fd >= 0) ::shutdown(fd, SHUT_RDWR);
}

// Empty when all have connected on all channels.
std::string TcpMesh::MissingHigherRanks() {
  std::string missing;
  const int channels = static_cast<int>(connections_.size()) / size();
  for (int peer = rank() + 1; peer < size(); ++peer) {
    bool there = true;
    for (int channel = 0; channel < channels; ++channel) there = there && Connection(channel, peer) >= 0;
    if (!there) missing += (missing.empty() ? "" : ", ") + Name(peer);
  }
  return missing;
}

// The limit holds on rank 0 from when the first rank has come: until then others may still be fetching their inputs.
void TcpMesh::AwaitHigherRanks(int listener, const std::string& key, const std::string& where) {
  const int channels = static_cast<int>(connections_.size()) / size();
  const std::string advice = std::string(kAddressAdvice) + (rank() == 0 ? kInputsAdvice : "");
  Deadline deadline(options_);
  for (std::string missing = MissingHigherRanks(); !missing.empty(); missing = MissingHigherRanks()) {
    if (std::ranges::all_of(connections_, [](int fd) { return fd < 0; })) deadline.Restart();
    deadline.Check(missing + " to connect to " + where, advice);
    pollfd waiting{listener, POLLIN, 0};
    if (::poll(&waiting, 1, 200) <= 0) continue;
    Socket socket(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
    const auto hello = socket.get() >= 0 ? AnswerGreeting(socket.get(), key) : std::nullopt;
    if (!hello || hello->rank <= rank() || hello->rank >= size() || hello->channel >= channels) continue;
    int& connection = Connection(hello->channel, hello->rank);
    if (connection >= 0) ::close(connection);  // it dialled again
    connection = socket.Release();
  }
}

// Rank 0 knows which ranks are missing, so it is to give up first, even if a stranger's greeting holds it up.
void TcpMesh::AwaitTable() {
  const Deadline deadline(options_, kHandshakeTimeoutS);
  pollfd waiting{Connection(0, 0), POLLIN, 0};
  while (::poll(&waiting, 1, 200) <= 0)
    deadline.Check("rank 0 to say that all ranks have come", "its log may tell who is missing (`allo logs --rank 0`)");
}

// Rank 0 gathers where each rank listens and tells all; then every rank dials those below it.
void TcpMesh::Meet(int channels) {
  if (size() == 1) return;
  const Listener listener = Listen(options_.listen);
  std::vector<Place> places(static_cast<size_t>(size()));
  Place& own = places[static_cast<size_t>(rank())];
  own = {OwnAddresses(options_.listen), listener.port};
  std::string key;

  const auto dial = [&](int peer, const Deadline& deadline) {
    for (int channel = 0; channel < channels; ++channel)
      Connection(channel, peer) =
          Connect(places[static_cast<size_t>(peer)], peer, key, {rank(), channel, ""}, deadline).Release();
  };

  if (rank() == 0) {
    key = RandomHex(kKeyBytes / 2);
    extra_ = options_.extra;
    Json word = own.ToJson();
    word["key"] = key;
    if (!extra_.is_null()) word["extra"] = extra_;
    if (word.dump().size() > kMostWord) Fail("the word for the other ranks is longer than it may be");
    options_.publish_word(word.dump());
    AwaitHigherRanks(listener.socket.get(), key, own.Text());
    Json table = Json::array({own.ToJson()});
    for (int peer = 1; peer < size(); ++peer) {
      MakeLasting(Connection(0, peer));
      table.push_back(Json::parse(ReceiveMessage(0, peer)));
    }
    for (int peer = 1; peer < size(); ++peer) SendMessage(0, peer, table.dump());
    return;
  }
  const std::string text = options_.wait_for_word();
  const Json word = Json::parse(text, nullptr, false);
  if (!word.is_object() || !word.contains("key")) Fail("rank 0's word is not one of an allo-trainer: '" + text + "'");
  key = word.at("key").get<std::string>();
  extra_ = word.value("extra", Json());
  places[0] = Place::From(word);
  dial(0, Deadline(options_));
  SendMessage(0, 0, own.ToJson().dump());
  AwaitTable();
  const Json table = Json::parse(ReceiveMessage(0, 0));
  const Deadline deadline(options_);
  for (int peer = 1; peer < rank(); ++peer) {
    places[static_cast<size_t>(peer)] = Place::From(table.at(static_cast<size_t>(peer)));
    dial(peer, deadline);
  }
  AwaitHigherRanks(listener.socket.get(), key, own.Text());
}

void TcpMesh::Send(int channel, int to, std::span<const char> bytes) { Exchange(channel, to, bytes, to, {}); }

void TcpMesh::Receive(int channel, int from, std::span<char> bytes) { Exchange(channel, from, {}, from, bytes); }

void TcpMesh::Exchange(int channel, int to, std::span<const char> sent, int from, std::span<char> received) {
  const int out = Connection(channel, to), in = Connection(channel, from);
  bytes_sent_ += static_cast<int64_t>(sent.size());
  while (!sent.empty() || !received.empty()) {
    std::array<pollfd, 2> waiting{pollfd{sent.empty() ? -1 : out, POLLOUT, 0},
                                  pollfd{received.empty() ? -1 : in, POLLIN, 0}};
    const int ready = ::poll(waiting.data(), waiting.size(), static_cast<int>(options_.silence_timeout_s * 1000));
    if (ready < 0 && errno == EINTR) continue;
    if (ready == 0)
      throw CollectiveTimeout(Name(received.empty() ? to : from) + " has said nothing for " +
                              std::to_string(options_.silence_timeout_s) + " s");
    if (ready < 0) Fail("waiting for " + Name(from) + ": " + common::ErrnoText());
    if (waiting[0].revents != 0) {
      const ssize_t n = ::send(out, sent.data(), sent.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (n < 0 && errno != EAGAIN && errno != EINTR) Fail(Name(to) + " is gone: " + common::ErrnoText());
      if (n > 0) sent = sent.subspan(static_cast<size_t>(n));
    }
    if (waiting[1].revents != 0) {
      const ssize_t n = ::recv(in, received.data(), received.size(), MSG_DONTWAIT);
      if (n == 0) Fail(Name(from) + " is gone: it closed its connection");
      if (n < 0 && errno != EAGAIN && errno != EINTR) Fail(Name(from) + " is gone: " + common::ErrnoText());
      if (n > 0) received = received.subspan(static_cast<size_t>(n));
    }
  }
}

std::string TcpMesh::LostPeer(int channel) {
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank()) continue;
    pollfd waiting{Connection(channel, peer), POLLIN | POLLRDHUP, 0};
    if (::poll(&waiting, 1, 0) > 0 && waiting.revents != 0) return Name(peer) + " is gone: it closed its connection";
  }
  return "";
}

void TcpMesh::SendMessage(int channel, int to, const std::string& message) {
  const uint64_t length = message.size();
  Send(channel, to, {reinterpret_cast<const char*>(&length), sizeof length});
  Send(channel, to, message);
}

std::string TcpMesh::ReceiveMessage(int channel, int from) {
  uint64_t length = 0;
  Receive(channel, from, {reinterpret_cast<char*>(&length), sizeof length});
  if (length > kLongestMessage) Fail(Name(from) + " sent a message of " + std::to_string(length) + " bytes");
  std::string message(length, '\0');
  Receive(channel, from, message);
  return message;
}

}  // namespace allometry::trainer
