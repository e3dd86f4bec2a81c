// SPDX-License-Identifier: Apache-2.0
// Container's errors in words.
#include "iommu/container_errors.hpp"

#include <fmt/format.h>

#include "base/words.hpp"
#include "host/requirements.hpp"
#include "kernel/ioctl.hpp"

namespace postern {
namespace {

constexpr const char* past_the_end = "it runs past the last address, 2^64-1";

std::string map_text(const Container& container, Iova iova, std::uint64_t length) {
  return fmt::format("map {}+{} into container {}", to_string(iova), size_text(length), container.backend());
}

std::string unmap_text(const Container& container, IovaRange range) {
  return fmt::format("unmap {} from container {}", to_string(range), container.backend());
}

}  // namespace

tl::unexpected<Error> Container::Errors::closed(std::string what) const {
  return refusal({.result = -EBADF,
                  .object = std::move(what),
                  .reason = "the container was closed",
                  .remedy = "attach the device to a new one"});
}

tl::unexpected<Error> Container::Errors::refuse_map(IovaRange range, std::span<std::byte> memory) const {
  const Iova iova = range.first;
  const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
  CallFailed what{.result = -EINVAL, .object = map_text(container_, iova, memory.size())};
  if (container_.closed_) return closed(what.object);
  if (container_.devices_.empty()) {
    what.result = -ENODEV;
    what.reason = "no device is attached, so there is no IOMMU to map for";
    what.remedy = "attach a device first";
  } else if (memory.empty()) {
    what.reason = "the length is zero";
  } else if (((iova.value | address | memory.size()) & container_.misaligned_) != 0) {
    what.reason = fmt::format("{} {:#x} is no multiple of the IOMMU's smallest page, {}",
                              (iova.value & container_.misaligned_) != 0 ? "iova"
                              : (address & container_.misaligned_) != 0  ? "address"
                                                                         : "length",
                              (iova.value & container_.misaligned_) != 0 ? iova.value
                              : (address & container_.misaligned_) != 0  ? address
                                                                         : memory.size(),
                              size_text(container_.misaligned_ + 1));
    what.remedy = "align iova, address and length to it";
  } else if (range.last < range.first || address + memory.size() <= address) {
    what.result = -EOVERFLOW;
    what.reason = range.last < range.first ? past_the_end : "the memory runs past the last address, 2^64-1";
  } else if (container_.mappings_left() != 0) {
    what.result = -ERANGE;
    what.reason = fmt::format("outside the usable ranges {}", ranges_text(container_.usable_ranges()));
    what.remedy = "choose an iova within them, for instance with IovaAllocator";
  } else {
    what.result = -ENOSPC;
    what.reason = fmt::format("all {} mappings that the kernel allows are in use", *container_.mapping_limit());
    what.remedy = "map larger pieces, or raise the module parameter vfio_iommu_type1.dma_entry_limit";
  }
  return refusal(std::move(what));
}

tl::unexpected<Error> Container::Errors::refuse_overlap(IovaRange range, IovaRange taken) const {
  return refusal({.result = -EEXIST,
                  .object = map_text(container_, range.first, range.length()),
                  .reason = fmt::format("{} overlaps {}, which is mapped", to_string(range), to_string(taken)),
                  .remedy = "unmap that first"});
}

tl::unexpected<Error> Container::Errors::map_failure(int result, IovaRange range, const void* address) const {
  const std::uint64_t length = range.length();
  CallFailed what{.result = result, .object = map_text(container_, range.first, length)};
  auto known = container_.explain_map(result, range, address);
  const std::string_view call = known.call.value_or(container_.traits_.map);
  if (!known.reason.empty()) {
    what.reason = std::move(known.reason);
    what.remedy = std::move(known.remedy);
    return call_failure(call, std::move(what));
  }
  switch (-result) {
    case ENOMEM:
      explain_locked_memory(what, container_.kernel(), length);
      break;
    case EFAULT:
      what.reason = fmt::format("memory at {} cannot be pinned for this access", address);
      what.remedy = "map memory that is there and may be written; iommufd does not take a BAR by its address";
      break;
    case EEXIST:
    case EADDRINUSE:
      what.reason = "the kernel says that something is mapped there that this container did not map";
      what.remedy = "do not use the container's fds beside this library";
      break;
    case ENOSPC:
      what.reason = fmt::format("the kernel takes no more mappings; {} are in use", container_.mapping_count());
      what.remedy = "map larger pieces, or raise the module parameter vfio_iommu_type1.dma_entry_limit";
      break;
    default:
      break;
  }
  return call_failure(call, std::move(what));
}

Container::Explanation Container::explain_map(int /*result*/, IovaRange /*range*/, const void* /*address*/) const {
  return {};
}

tl::unexpected<Error> Container::Errors::unmap_failure(int result, IovaRange range) const {
  CallFailed what{.result = result, .object = unmap_text(container_, range)};
  if (result < 0) return call_failure(container_.traits_.unmap, std::move(what));
  what.result = -ENOENT;
  what.reason = fmt::format("{} says that nothing was mapped there any more", container_.traits_.unmap);
  what.remedy = "do not use the container's fds beside this library";
  return refusal(std::move(what));
}

tl::unexpected<Error> Container::Errors::refuse_unmap(IovaRange range, std::uint64_t length) const {
  if (container_.closed_) return closed(unmap_text(container_, range));
  CallFailed what{.result = -EINVAL,
                  .object = fmt::format("unmap {}+{} from container {}", to_string(range.first), size_text(length),
                                        container_.backend())};
  if (length == 0) {
    what.reason = "the length is zero";
  } else if (((range.first.value | length) & container_.misaligned_) != 0) {
    what.reason = fmt::format("iova and length must be multiples of the IOMMU's smallest page, {}",
                              size_text(container_.misaligned_ + 1));
  } else {
    what.result = -EOVERFLOW;
    what.reason = past_the_end;
  }
  return refusal(std::move(what));
}

tl::unexpected<Error> Container::Errors::refuse_split(IovaRange range, const IovaRange* split) const {
  CallFailed what{.result = -ENOENT, .object = unmap_text(container_, range), .reason = "nothing is mapped there"};
  if (split != nullptr) {
    what.result = -EINVAL;
    what.reason = fmt::format("it would split the mapping {}", to_string(*split));
    what.remedy = "unmap whole mappings; map in the pieces that are to be unmapped";
  }
  return refusal(std::move(what));
}

}  // namespace postern
