#include "worker/trainer/engine/side_stream.h"

#include <c10/core/impl/VirtualGuardImpl.h>

namespace allometry::trainer {
namespace {

c10::Stream NewStream(const at::Device& device, SideStream::Priority priority) {
  const c10::impl::VirtualGuardImpl guard(device.type());
  return device.is_cpu() ? guard.getStream(device)
                         : guard.getStreamFromGlobalPool(device, priority == SideStream::Priority::kHigh);
}

}  // namespace

SideStream::SideStream(const at::Device& device, Priority priority)
    : device_(device), own_(NewStream(device, priority)) {}

c10::Stream SideStream::Current() const { return c10::impl::VirtualGuardImpl(device_.type()).getStream(device_); }

void SideStream::Order(const c10::Stream& first, const c10::Stream& then) const {
  if (device_.is_cpu()) return;
  c10::Event event(device_.type());
  event.record(first);
  event.block(then);
}

c10::Event SideStream::MarkOf(const c10::Stream& stream) const {
  c10::Event event(device_.type());
  if (!device_.is_cpu()) event.record(stream);
  return event;
}

}  // namespace allometry::trainer
