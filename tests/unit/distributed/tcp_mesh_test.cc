#include "worker/trainer/distributed/tcp_mesh.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <memory>

#include "tests/unit/distributed/ranks.h"

namespace allometry::trainer {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string WhatOf(const std::function<void()>& f) {
  try {
    f();
  } catch (const PeerLost& lost) {
    return lost.what();
  }
  return "";
}

// The same, and whether it is a time-out is as expected.
std::string WhatOfTimeout(bool expected, const std::function<void()>& f) {
  try {
    f();
  } catch (const PeerLost& lost) {
    EXPECT_EQ(dynamic_cast<const CollectiveTimeout*>(&lost) != nullptr, expected) << lost.what();
    return lost.what();
  }
  return "";
}

TEST(TcpMesh, EveryTwoRanksTalkOnEveryChannel) {
  for (int ranks : {1, 2, 3, 5}) {
    Meeting meeting(ranks);
    OnRanks(ranks, [&](int rank) {
      TcpMesh mesh(meeting.Options(rank), 2);
      EXPECT_EQ(mesh.size(), ranks);
      for (int channel : {1, 0}) {
        const std::string mine = std::to_string(channel) + " from " + std::to_string(rank);
        for (int peer = 0; peer < ranks; ++peer)
          if (peer != rank) mesh.SendMessage(channel, peer, mine);
        for (int peer = 0; peer < ranks; ++peer)
          if (peer != rank)
            EXPECT_EQ(mesh.ReceiveMessage(channel, peer), std::to_string(channel) + " from " + std::to_string(peer));
      }
      for (int peer = 0; peer < ranks; ++peer)  // so that nobody leaves before all have read
        if (peer != rank) mesh.SendMessage(0, peer, "");
      for (int peer = 0; peer < ranks; ++peer)
        if (peer != rank) mesh.ReceiveMessage(0, peer);
    });
  }
}

TEST(TcpMesh, ARingThatAllSendInDoesNotStandStill) {
  constexpr size_t kBytes = 64 << 20;  // more than any socket holds
  Meeting meeting(3);
  OnRanks(3, [&](int rank) {
    TcpMesh mesh(meeting.Options(rank), 1);
    const std::string sent(kBytes, static_cast<char>('a' + rank));
    std::string received(kBytes, '\0');
    mesh.Exchange(0, (rank + 1) % 3, sent, (rank + 2) % 3, received);
    EXPECT_EQ(received, std::string(kBytes, static_cast<char>('a' + (rank + 2) % 3)));
    EXPECT_EQ(mesh.bytes_sent(), static_cast<int64_t>(kBytes));
  });
}

TEST(TcpMesh, ARankThatLeavesIsNamed) {
  Meeting meeting(3);
  OnRanks(3, [&](int rank) {
    auto mesh = std::make_unique<TcpMesh>(meeting.Options(rank), 2);
    if (rank == 2) return;
    char byte = 0;
    EXPECT_EQ(WhatOf([&] { mesh->Receive(0, 2, {&byte, 1}); }), "rank 2 is gone: it closed its connection");
    std::string seen;  // its connections close one after the other
    for (int tries = 0; tries < 10'000 && seen.empty(); ++tries) {
      seen = mesh->LostPeer(1);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    EXPECT_THAT(seen, HasSubstr("is gone: it closed its connection"));
  });
}

TEST(TcpMesh, ASilentRankIsLostAfterTheLimit) {
  Meeting meeting(2);
  std::promise<void> over;
  OnRanks(2, [&](int rank) {
    MeshOptions options = meeting.Options(rank);
    options.silence_timeout_s = 1;
    TcpMesh mesh(options, 1);
    if (rank == 1) return over.get_future().wait();
    char byte = 0;
    EXPECT_EQ(WhatOf([&] { mesh.Receive(0, 1, {&byte, 1}); }), "rank 1 has said nothing for 1 s");
    EXPECT_THROW(mesh.Receive(0, 1, {&byte, 1}), CollectiveTimeout) << "and not simply a lost peer: it is there";
    over.set_value();
  });
}

TEST(TcpMesh, ShutdownWakesWhoWaits) {
  Meeting meeting(2);
  OnRanks(2, [&](int rank) {
    TcpMesh mesh(meeting.Options(rank), 1);
    std::thread waker;
    if (rank == 0) waker = std::thread([&] { mesh.Shutdown(); });
    char byte = 0;
    EXPECT_NE(WhatOf([&] { mesh.Receive(0, 1 - rank, {&byte, 1}); }), "");
    if (waker.joinable()) waker.join();
  });
}

// Others may be fetching their inputs for longer than ranks are waited for.
TEST(TcpMesh, TheFirstOtherRankIsWaitedForWithoutALimit) {
  Meeting meeting(2);
  MeshOptions options = meeting.Options(0);
  options.connect_timeout_s = 1;
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(2);
  options.cancelled = [&] { return std::chrono::steady_clock::now() > end; };
  EXPECT_THROW(TcpMesh(options, 1), MeetingCancelled);
}

TEST(TcpMesh, OnceARankHasComeTheMissingOnesAreNamedAfterTheLimit) {
  Meeting meeting(4);
  OnRanks(2, [&](int rank) {
    MeshOptions options = meeting.Options(rank);
    if (rank == 0) options.connect_timeout_s = 1;
    const std::string what = WhatOfTimeout(rank == 0, [&] { TcpMesh mesh(options, 1); });
    const std::string port = common::Json::parse(meeting.Word()).at("port").dump();
    EXPECT_THAT(what,
                HasSubstr(rank == 1 ? "rank 0 is gone" : "in vain for rank 2, rank 3 to connect to 127.0.0.1:" + port));
    if (rank == 1) return;
    EXPECT_THAT(what, AllOf(HasSubstr("--address"), HasSubstr("peer_timeout_s")));
  });
}

// A port of this machine that nobody else gets and nobody listens on.
class DeafPort {
 public:
  DeafPort() {
    sockaddr_in address{};
    socklen_t size = sizeof address;
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::bind(fd_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(::getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    port_ = ntohs(address.sin_port);
  }
  ~DeafPort() { ::close(fd_); }
  DeafPort(const DeafPort&) = delete;
  DeafPort& operator=(const DeafPort&) = delete;
  int number() const { return port_; }

 private:
  int fd_ = ::socket(AF_INET, SOCK_STREAM, 0), port_ = 0;
};

TEST(TcpMesh, ARankThatCannotBeReachedIsTriedUntilTheLimit) {
  const DeafPort port;
  MeshOptions options;
  options.rank = 1;
  options.ranks = 2;
  options.connect_timeout_s = 1;
  options.wait_for_word = [&] {
    const common::Json addresses = {"127.0.0.1", "localhost"};
    return common::Json{{"addresses", addresses}, {"port", port.number()}, {"key", "k"}}.dump();
  };
  const std::string what = WhatOfTimeout(true, [&] { TcpMesh mesh(options, 1); }),
                    number = std::to_string(port.number());
  EXPECT_THAT(what, HasSubstr("in vain for rank 0 to answer at 127.0.0.1:" + number + ", localhost:" + number));
  EXPECT_THAT(what, AllOf(HasSubstr("--address"), HasSubstr("firewall")));
}

// All have reached rank 0, but rank 1 tells an address where nobody can connect to.
TEST(TcpMesh, RanksAfterTheFirstThatDoNotReachOneAnotherGiveUpToo) {
  Meeting meeting(3);
  OnRanks(3, [&](int rank) {
    MeshOptions options = meeting.Options(rank);
    if (rank == 0) return void(TcpMesh(options, 1));
    options.connect_timeout_s = 1;
    if (rank == 1) options.listen = "255.255.255.255";
    const std::string what = WhatOfTimeout(true, [&] { TcpMesh mesh(options, 1); });
    EXPECT_THAT(
        what, HasSubstr(rank == 1 ? "rank 2 to connect to 255.255.255.255:" : "rank 1 to answer at 255.255.255.255:"));
  });
}

TEST(TcpMesh, AMeetingCanBeCancelled) {
  Meeting alone(2);
  MeshOptions options = alone.Options(0);
  options.cancelled = [] { return true; };
  EXPECT_THROW(TcpMesh(options, 1), MeetingCancelled);
  Meeting meeting(3);  // of which one does not come
  std::atomic<bool> over{false};
  OnRanks(2, [&](int rank) {
    MeshOptions waiting = meeting.Options(rank);
    waiting.cancelled = [&, tries = 0]() mutable { return rank == 1 ? ++tries > 3 : over.load(); };
    EXPECT_THROW(TcpMesh(waiting, 1), MeetingCancelled);
    over = true;
  });
}

// A name, and an address that is not this machine's own.
TEST(TcpMesh, RanksListenUnderNames) {
  for (const char* listen : {"localhost", "0.0.0.0", "198.51.100.1"}) {
    Meeting meeting(2);
    OnRanks(2, [&](int rank) {
      MeshOptions options = meeting.Options(rank);
      options.listen = listen;
      if (rank == 1 && options.listen == "198.51.100.1")  // where rank 0 is to be found all the same
        options.wait_for_word = [&] {
          common::Json word = common::Json::parse(meeting.Word());
          EXPECT_EQ(word.at("addresses"), common::Json::array({"198.51.100.1"}));
          word["addresses"] = {"127.0.0.1"};
          return word.dump();
        };
      TcpMesh mesh(options, 1);
      if (rank == 1) mesh.SendMessage(0, 0, listen);
      if (rank == 0) EXPECT_EQ(mesh.ReceiveMessage(0, 1), listen);
    });
  }
}

TEST(TcpMesh, AWordThatIsNoneIsShown) {
  MeshOptions options;
  options.rank = 1;
  options.ranks = 2;
  options.wait_for_word = [] { return "hello"; };
  EXPECT_THAT(WhatOf([&] { TcpMesh mesh(options, 1); }), HasSubstr("hello"));
}

// Connects to where rank 0 listens and says `bytes`.
int Intrude(const std::string& word, const std::string& bytes) {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(common::Json::parse(word).at("port").get<int>()));
  ::inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
  EXPECT_EQ(::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  EXPECT_EQ(::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  return fd;
}

TEST(TcpMesh, StrangersAreLeftOutside) {
  Meeting meeting(2);
  std::vector<int> strangers;
  OnRanks(2, [&](int rank) {
    MeshOptions options = meeting.Options(rank);
    if (rank == 1) {
      const std::string word = meeting.Word();
      // No rank at all; and one that has everything right but the key's proof.
      strangers.push_back(Intrude(word, std::string(200, 'x')));
      strangers.push_back(Intrude(word, "ALLORNK1000001000000" + std::string(32, '0') + std::string(64, '0')));
    }
    TcpMesh mesh(options, 1);
    if (rank == 1) mesh.SendMessage(0, 0, "I am rank 1");
    if (rank == 0) EXPECT_EQ(mesh.ReceiveMessage(0, 1), "I am rank 1");
  });
  for (const int fd : strangers) ::close(fd);
}

TEST(TcpMesh, ARankWithAnotherKeyIsLeftOutside) {
  Meeting meeting(2);
  std::atomic<bool> met{false};
  OnRanks(2, [&](int rank) {
    MeshOptions options = meeting.Options(rank);
    options.cancelled = [&, tries = 0]() mutable { return rank == 1 ? ++tries > 3 : met.load(); };
    if (rank == 1)
      options.wait_for_word = [&] {
        common::Json word = common::Json::parse(meeting.Word());
        word["key"] = std::string(32, '0');
        return word.dump();
      };
    EXPECT_THROW(TcpMesh(options, 1), MeetingCancelled);
    met = true;
  });
}

}  // namespace
}  // namespace allometry::trainer
