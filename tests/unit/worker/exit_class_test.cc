#include "worker/supervisor/exit_class.h"

#include <csignal>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace allometry::worker {
namespace {

ProcessEnd Exited(int code, StopCause cause = StopCause::kNone) {
  ProcessEnd end;
  end.exit_code = code;
  end.cause = cause;
  return end;
}

ProcessEnd Signalled(int signal, StopCause cause = StopCause::kNone) {
  ProcessEnd end;
  end.signal = signal;
  end.cause = cause;
  return end;
}

TEST(ExitClass, FollowsTheContractsTable) {
  EXPECT_EQ(Classify(Exited(0), true), ExitClass::kDone);
  EXPECT_EQ(Classify(Exited(0), false), ExitClass::kCrash);
  EXPECT_EQ(Classify(Exited(40), false), ExitClass::kStopped);
  EXPECT_EQ(Classify(Exited(42), false), ExitClass::kConfigError);
  EXPECT_EQ(Classify(Exited(43), false), ExitClass::kDataError);
  EXPECT_EQ(Classify(Exited(44), false), ExitClass::kDiverged);
  EXPECT_EQ(Classify(Exited(45), false), ExitClass::kOutOfMemory);
  EXPECT_EQ(Classify(Exited(46), false), ExitClass::kPeerLost);
  EXPECT_EQ(Classify(Exited(47), false), ExitClass::kDeviceLost);
  EXPECT_EQ(Classify(Exited(48), false), ExitClass::kDeviceFull);
  EXPECT_EQ(Classify(Exited(49), false), ExitClass::kDriverTooOld);
  EXPECT_EQ(Classify(Exited(50), false), ExitClass::kCollectiveTimeout);
  for (int code : {1, 2, 39, 41, 51, 127, 255}) EXPECT_EQ(Classify(Exited(code), true), ExitClass::kCrash) << code;
  EXPECT_EQ(Classify(Signalled(SIGSEGV), true), ExitClass::kCrash);
}

// As PyTorch, CUDA and NCCL write them, with what stands around them.
TEST(ExitClass, LastWordsOfACrashTellWhatIsTheDevicesFault) {
  const std::string behind =
      "\nCUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be "
      "incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1\n";
  const std::vector<std::pair<const char*, ExitClass>> cases{
      {"torch.AcceleratorError: CUDA error: unspecified launch failure", ExitClass::kDeviceLost},
      {"RuntimeError: CUDA error: uncorrectable ECC error encountered", ExitClass::kDeviceLost},
      {"terminate called after throwing an instance of 'c10::AcceleratorError'\n  what():  CUDA error: uncorrectable "
       "NVLink error detected during the execution",
       ExitClass::kDeviceLost},
      {"NVRM: Xid (PCI:0000:3b:00): 79, pid=1234, GPU has fallen off the bus.", ExitClass::kDeviceLost},
      {"allo-trainer: NCCL reports: unhandled cuda error (run with NCCL_DEBUG=INFO for details)", ExitClass::kCrash},
      {"Cuda failure 'unspecified launch failure'\nNCCL reports: unhandled cuda error", ExitClass::kDeviceLost},
      {"CUDA error: MPS client failed to connect to the MPS control daemon or the MPS server", ExitClass::kDeviceLost},
      {"CUDA error: the remote procedural call between the MPS server and the MPS client failed",
       ExitClass::kDeviceLost},
      {"CUDA error: MPS server is not ready to accept new MPS client requests", ExitClass::kDeviceLost},
      {"CUDA error: the MPS client has been terminated by the server", ExitClass::kDeviceLost},
      {"CUDA error: the hardware resources required to create MPS client have been exhausted", ExitClass::kDeviceFull},
      {"CUDA error: the hardware resources required to support device connections have been exhausted",
       ExitClass::kDeviceFull},
      {"RuntimeError: CUDA error: CUDA-capable device(s) is/are busy or unavailable", ExitClass::kDeviceFull},
      {"RuntimeError: The NVIDIA driver on your system is too old (found version 12040). Please update your GPU driver",
       ExitClass::kDriverTooOld},
      {"CUDA error: CUDA driver version is insufficient for CUDA runtime version", ExitClass::kDriverTooOld},
      {"RuntimeError: CUDA error: an illegal memory access was encountered", ExitClass::kCrash},
      {"RuntimeError: CUDA error: device-side assert triggered", ExitClass::kCrash},
      {"Segmentation fault", ExitClass::kCrash},
  };
  for (const auto& [text, expected] : cases) {
    ProcessEnd end = Exited(1);
    end.stderr_tail = "step 3\n" + std::string(text) + behind;
    EXPECT_EQ(Classify(end, false), expected) << text;
    if (expected != ExitClass::kCrash)
      EXPECT_NE(std::string(text).find(TellingLine(end.stderr_tail)), std::string::npos);
    end.exit_code = 43;
    EXPECT_EQ(Classify(end, false), ExitClass::kDataError) << "a code of the contract says more than a text";
    end.exit_code = 0;
    EXPECT_EQ(Classify(end, true), ExitClass::kDone);
  }
}

TEST(ExitClass, AFailedDeviceComesWithAdvice) {
  EXPECT_NE(DescribeEnd(Exited(47), false).find("dmesg"), std::string::npos);
  EXPECT_NE(DescribeEnd(Exited(48), false).find("nvidia-smi"), std::string::npos);
  EXPECT_NE(DescribeEnd(Exited(49), false).find("Update the driver"), std::string::npos);
  EXPECT_NE(DescribeEnd(Exited(50), false).find("peer_timeout_s"), std::string::npos);
}

TEST(ExitClass, OurOwnSignalIsNoCrashButASignalFromElsewhereIs) {
  EXPECT_EQ(Classify(Signalled(SIGTERM, StopCause::kRequest), false), ExitClass::kStopped);
  EXPECT_EQ(Classify(Signalled(SIGKILL, StopCause::kRequest), false), ExitClass::kStopped);
  EXPECT_EQ(Classify(Exited(143, StopCause::kRequest), false), ExitClass::kStopped);
  EXPECT_EQ(Classify(Signalled(SIGKILL), false), ExitClass::kCrash);
  EXPECT_EQ(Classify(Signalled(SIGSEGV, StopCause::kRequest), false), ExitClass::kCrash);
}

TEST(ExitClass, ALimitIsALimitHoweverTheTrainerLeavesUnlessItWasDone) {
  EXPECT_EQ(Classify(Exited(40, StopCause::kTimeLimit), false), ExitClass::kLimit);
  EXPECT_EQ(Classify(Signalled(SIGKILL, StopCause::kMemoryLimit), false), ExitClass::kLimit);
  EXPECT_EQ(Classify(Exited(0, StopCause::kTimeLimit), true), ExitClass::kDone);
}

TEST(ExitClass, TheReasonNamesTheEndAndTheLastLines) {
  ProcessEnd end = Exited(3);
  end.stderr_tail = "no such file";
  EXPECT_EQ(DescribeEnd(end, false), "exit code 3\nno such file");
  EXPECT_EQ(DescribeEnd(Exited(0), false), "exit code 0 without a result event");
  EXPECT_EQ(DescribeEnd(Signalled(11), false), "ended by signal 11");
}

}  // namespace
}  // namespace allometry::worker
