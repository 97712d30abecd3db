#include "worker/daemon/host.h"

#include "gtest/gtest.h"

namespace allometry::worker {
namespace {

Device Gpu(const std::string& name, const std::string& uuid, const std::string& fault = "") {
  Device device;
  device.name = name;
  device.uuid = uuid;
  device.memory_bytes = 1'000;
  device.fault = fault;
  return device;
}

TEST(TakeProbe, FindsDevicesByTheirUuidWhenNamesHaveMoved) {
  std::vector<Device> known{Gpu("cuda:0", "a", "device_lost: Xid 79"), Gpu("cuda:1", "b")};
  TakeProbe({Gpu("cuda:0", "b")}, {false, false}, &known);
  EXPECT_EQ(known[0].fault, "device_lost: Xid 79") << "gone";
  EXPECT_EQ(known[1].name, "cuda:0");
  EXPECT_EQ(known[1].fault, "");
  TakeProbe({Gpu("cuda:0", "a"), Gpu("cuda:1", "b")}, {false, false}, &known);
  EXPECT_EQ(known[0].fault, "") << "whole again";
  EXPECT_EQ(known[1].name, "cuda:1");
  TakeProbe({Gpu("cuda:0", "a")}, {false, false}, &known);
  EXPECT_EQ(known[1].fault, "device_lost: the probe no longer finds it");
}

TEST(TakeProbe, AProbeThatFailedSaysNothing) {
  std::vector<Device> known{Gpu("cuda:0", "a"), Gpu("cuda:1", "b", "device_full: 10 bytes")};
  TakeProbe({}, {false, false}, &known);
  EXPECT_EQ(known[0].fault, "");
  EXPECT_EQ(known[1].fault, "device_full: 10 bytes");
}

TEST(TakeProbe, AFullDeviceWaitsUntilItsMemoryIsFree) {
  const std::string full = "device_full: 10 bytes";
  std::vector<Device> known{Gpu("cuda:0", "", full)};
  Device found = Gpu("cuda:0", "");
  found.free_bytes = 899;
  TakeProbe({found}, {false}, &known);
  EXPECT_EQ(known[0].fault, full);
  TakeProbe({found}, {true}, &known);
  EXPECT_EQ(known[0].fault, "") << "what is missing may be our own attempt's";
  found.fault = full;
  TakeProbe({found}, {true}, &known);
  EXPECT_EQ(known[0].fault, "") << "the probe's own context may be what does not fit beside our attempt";
  TakeProbe({found}, {false}, &known);
  EXPECT_EQ(known[0].fault, full);
  TakeProbe({found}, {true}, &known);
  EXPECT_EQ(known[0].fault, full) << "an attempt found it full, and nothing says otherwise";
  found.fault = "device_lost: Xid 79";
  known[0].fault = "";
  TakeProbe({found}, {true}, &known);
  EXPECT_EQ(known[0].fault, found.fault);
  found.fault = "";
  known[0].fault = full;
  found.free_bytes = 900;
  TakeProbe({found}, {false}, &known);
  EXPECT_EQ(known[0].fault, "");
}

}  // namespace
}  // namespace allometry::worker
